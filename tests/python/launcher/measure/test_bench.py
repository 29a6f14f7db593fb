"""`atoll bench`: what it is asked for, what it answers, and two real islands that measure."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atoll import measure
from atoll.collectives.options import PLANS
from atoll.errors import AtollError, MisuseError, RuntimeFault
from atoll.measure import AllReduce, Measurement, iterations_for, measure_all_reduce, warm_up_for
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.main import main
from atoll_launcher.measure import bench_island, bench_report
from atoll_launcher.measure.bench_report import Machine, others_busy
from atoll_launcher.measure.bench_request import Request, check_memory, parse_request, parse_size
from launched import Launch

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1KiB", 1024),
        ("16mib", 16 << 20),
        ("2 GiB", 2 << 30),
        ("4MB", 4_000_000),
        ("268435456", 1 << 28),
        ("12b", 12),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "KiB", "-1", "1.5MiB", "1XiB", "0", "1 K", "100TiB", "٣"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(MisuseError, match="--size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--standalone", "--size", "big"], "--size big: expected bytes, for example 1KiB"),
        (["--standalone", "--size", "6"], "--size 6: no whole number of float32 values, 4 bytes"),
        (["--standalone", "--plan", "rong"], "--plan rong: not known, did you mean 'ring'?"),
        (["--standalone", "--plan", "x"], "--plan x: not known, known are: auto, ring, direct, d"),
        (["--standalone", "--codec", "morse"], "--codec morse: not known, known are: fp32, bf16"),
        (["--standalone", "--dtype", "complex"], "--dtype complex: not known, known are: float64"),
        (["--standalone", "--iterations", "3"], "--iterations 3: must be from 7"),
        (["--standalone", "--islands", "0"], "islands = 0 (from --islands): must be at least 1"),
        (["--standalone", "--transport", "mail"], "'mail' is not one of 'auto', 'tcp', 'shm'"),
        (["--standalone", "--islands", "1000", "--size", "60GiB"], "choose a smaller --size"),
        (["--islands", "2"], "--islands is for --standalone"),
        ([], "not inside a job (ATOLL_COORDINATOR is not set); give --standalone"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ATOLL_COORDINATOR", raising=False)
    code = main(["bench", "allreduce", *arguments])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("atoll: ")
    assert message in err


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_can_be_measured_and_is_in_the_help(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    request = parse_request(
        sizes=["1KiB"], codec=None, plan=plan, dtype="float32", transport="auto", iterations=None
    )
    assert [one.plan for one in request.series] == [plan]
    assert main(["bench", "allreduce", "--help"]) == 0
    assert f" {plan}" in capsys.readouterr().out.split("--plan PLAN")[1].split("--dtype")[0]


def test_a_request_survives_the_command_line() -> None:
    request = parse_request(
        sizes=["1KiB", "1MiB"],
        codec="int8",
        plan="ring",
        dtype="bf16",
        transport="tcp",
        iterations=9,
    )
    assert Request.from_json(request.to_json()) == request
    assert [one.nbytes for one in request.series] == [1024, 1 << 20]
    assert {one.dtype for one in request.series} == {"bfloat16"}
    check_memory(request, 2)


def test_small_ops_are_timed_often_and_large_ones_seven_times() -> None:
    assert [iterations_for(1 << power) for power in (10, 24, 28, 34)] == [100, 16, 7, 7]
    assert [warm_up_for(iterations) for iterations in (7, 16, 100)] == [2, 3, 10]


# --- numbers --------------------------------------------------------------------------------------


def measurement(**changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "what": AllReduce(nbytes=1000),
        "members": 3,
        "plan": "direct",
        "iterations": 2,
        "times_s": ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)),
        "cpu_s": 8.0,
        "sleeps": 1.0,
        "sent_bytes": (10.0, 20.0, 30.0),
        "began_s": (0.1, 0.2, 0.3),
        "error": 0.0,
    }
    return Measurement(**{**fields, **changes})


def test_the_numbers_of_a_measurement() -> None:
    one = measurement()
    assert (one.median_s, one.min_s, one.max_s) == (3.5, 1.0, 6.0)
    assert one.bandwidth == pytest.approx(1000 / 3.5)
    assert one.moved_bytes == 4000
    assert one.cpu_s_per_byte == pytest.approx(0.002)
    assert measurement(members=1, times_s=((1.0,),)).cpu_s_per_byte == 0.0


def test_what_other_processes_used() -> None:
    before = Machine(clock_s=10.0, load=0.0, busy_s=100.0, own_s=1.0)
    after = Machine(clock_s=14.0, load=0.0, busy_s=109.0, own_s=4.0)
    assert others_busy(before, after) == pytest.approx(1.5)
    assert math.isnan(others_busy(dataclasses.replace(before, busy_s=math.nan), after))
    now = Machine.now()
    assert now.busy_s >= now.own_s > 0


def test_results_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    bench_island.write_results(path, [measurement()])
    assert bench_island.read_results(path) == [measurement()]
    path.write_text(json.dumps({"error": "no such codec"}))
    with pytest.raises(AtollError, match="no such codec"):
        bench_island.read_results(path)


# --- a session that is not what it should be ------------------------------------------------------


class FakeSession:
    """A job of one member, whose sums are off by `offset` and whose view changes at op `change`."""

    def __init__(self, offset: float = 0.0, change: int = 1 << 30) -> None:
        self.view = SimpleNamespace(epoch=1)
        self.rank, self.size = 0, 1
        self.engine = SimpleNamespace(stats=lambda: SimpleNamespace(links=[]))
        self._offset = offset
        self._change = change
        self._ops = 0

    def barrier(self) -> None:
        pass

    def all_reduce(
        self, source: Any, target: Any = None, *, plan: str = "auto", codec: str | None = None
    ) -> Any:
        self._ops += 1
        target = source.clone() if target is None else target.copy_(source + self._offset)
        epoch = 2 if self._ops > self._change else 1
        outcome = SimpleNamespace(epoch=epoch, plan="")
        return SimpleNamespace(target=target, wait=lambda: outcome)


def measured(session: FakeSession, **what: Any) -> Measurement:
    return measure_all_reduce(session, AllReduce(nbytes=64, **what))  # type: ignore[arg-type]


def test_a_job_of_one_measures() -> None:
    one = measured(FakeSession(), iterations=7)
    assert (one.iterations, len(one.times_s[0]), one.error, one.plan) == (7, 7, 0.0, "auto")


@pytest.mark.parametrize("dtype", sorted(set(measure.DTYPES.values())))
def test_every_dtype_has_numbers(dtype: str) -> None:
    assert measured(FakeSession(), dtype=dtype).error == 0.0


@pytest.mark.parametrize("offset", [0.01, math.nan])
def test_a_wrong_sum_is_an_error(offset: float) -> None:
    with pytest.raises(RuntimeFault, match="wrong sum"):
        measured(FakeSession(offset=offset))


def test_members_that_change_make_it_void() -> None:
    with pytest.raises(RuntimeFault, match="came or went"):
        measured(FakeSession(change=5))


def test_what_a_session_cannot_do() -> None:
    with pytest.raises(MisuseError, match="no whole number of float32"):
        measure_all_reduce(FakeSession(), AllReduce(nbytes=6))  # type: ignore[arg-type]


# --- real islands ---------------------------------------------------------------------------------


@pytest.mark.processes
def test_two_islands_measure_and_print_one_document() -> None:
    command = [sys.executable, "-m", "atoll_launcher", "bench", "allreduce", "--standalone"]
    options = ["--islands", "2", "--size", "4KiB", "--size", "1MiB", "--plan", "direct"]
    done = subprocess.run(
        [*command, *options, "--iterations", "7", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["operation"], document["islands"]) == ("allreduce", 2)
    assert {"cores", "load_before", "load_after"} <= document["machine"].keys()
    small, large = document["results"]
    assert (small["bytes"], large["bytes"]) == (4096, 1 << 20)
    for row in (small, large):
        assert [len(times) for times in row["times_s"]] == [7, 7]
        assert 0 < row["min_s"] <= row["median_s"] <= row["max_s"]
        assert row["bytes_per_s"] == pytest.approx(row["bytes"] / row["median_s"])
        assert row["cpu_s_per_op"] > 0
        assert 0 < abs(row["began_s"][0] - row["began_s"][1]) < 30
        assert row["cpu_s_per_moved_byte"] == pytest.approx(row["cpu_s_per_op"] / 2 / row["bytes"])
        assert (row["codec"], row["error"] < 1e-5) == (None, True)
    # The direct plan among two: half a vector to the other, the sum of the own half back.
    assert large["sent_bytes_per_island"] == pytest.approx([1 << 20] * 2, rel=0.01)
    bench_report.print_table(document)


@pytest.mark.processes
def test_a_codec_makes_it_smaller_and_rougher() -> None:
    command = [sys.executable, "-m", "atoll_launcher", "bench", "allreduce", "--standalone"]
    options = ["--islands", "2", "--size", "256KiB", "--codec", "int8", "--iterations", "7"]
    done = subprocess.run(
        [*command, *options, "--json"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)["results"]
    assert (row["codec"], row["plan"]) == ("int8", "direct")
    assert 0 < row["error"] < 0.05
    # A byte for four, and a scale for 256 of them.
    assert row["sent_bytes_per_island"] == pytest.approx([(1 << 18) * 260 / 1024] * 2, rel=0.02)


@pytest.mark.processes
def test_islands_of_a_running_job_measure_themselves(launch: Launch, tmp_path: Path) -> None:
    script = tmp_path / "measure.py"
    script.write_text("import sys\nfrom atoll_launcher.main import main\nsys.exit(main())\n")
    arguments = ["bench", "allreduce", "--size", "1KiB", "--iterations", "7", "--json"]
    launcher = launch("run", "--standalone", "--islands", "2", str(script), *arguments)
    code, out, err = launcher.end()
    assert (code, err) == (0, "")
    lines = [line.partition(" | ")[2] for line in out.splitlines() if " | " in line]
    document = json.loads("\n".join(lines))
    assert (document["islands"], document["machine"]["others_busy_cores"]) == (2, None)
    assert document["results"][0]["iterations"] == 7


@pytest.mark.processes
def test_what_the_islands_complain_of_is_one_line() -> None:
    command = [sys.executable, "-m", "atoll_launcher", "bench", "allreduce", "--standalone"]
    done = subprocess.run(
        [*command, "--size", "1KiB", "--codec", "int8", "--dtype", "int64", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "all_reduce: a codec takes float32 only" in done.stderr


def test_vectors_beyond_the_memory_are_refused() -> None:
    request = Request(series=(AllReduce(nbytes=1 << 40),), transport="auto")
    with pytest.raises(LauncherError, match=r"need 6144\.0 GiB"):
        check_memory(request, 2)
