"""atoll doctor, atoll bench links and atoll chaos against real processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import RunningJob, until

from atoll_launcher.faults.cut_off import POLL_S, Cut, obstacle
from atoll_launcher.faults.plan import LONGEST_S, Fault, steps
from atoll_launcher.main import main
from atoll_launcher.trust.certs import issue_island, make_authority
from ports import free_port

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningJob]:
    running = RunningJob(tmp_path_factory.mktemp("alone"))
    yield running
    running.close()


def doctor(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code, and the findings by what they are about."""
    capsys.readouterr()
    code = main(["doctor", "--json", *arguments])
    return code, {finding["about"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_the_doctor_finds_a_healthy_job(
    coordinator: RunningJob, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = doctor(capsys, coordinator.address)
    assert code == 0
    assert {finding["level"] for finding in found.values()} <= {"ok", "warn"}
    for about in ("name", "port", "coordinator", "mtu", "round trip", "large packets"):
        assert found[about]["level"] == "ok"
    assert found["version"]["level"] == "ok"
    assert re.search(r"bit/s there and .*bit/s back with 1 .* with 8", found["rate"]["text"])
    assert found["reached from outside"]["text"] == "yes, as 127.0.0.1"
    assert found["clock"]["level"] == "ok"
    assert {"congestion", "buffers", "islands", "open files", "certificate"} <= set(found)


def test_the_doctor_says_what_is_wrong_with_an_address(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, found = doctor(capsys, f"127.0.0.1:{free_port()}")
    assert code == 3
    assert "nothing listens there" in found["port"]["advice"]
    code, found = doctor(capsys, "no-such-host.invalid:7000")
    assert code == 3
    assert found["name"]["level"] == "fail"


def test_a_join_that_fails_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text("")
    address = f"127.0.0.1:{free_port()}"
    assert main(["run", "--join", address, "--log-dir", str(tmp_path), str(script)]) == 3
    errors = capsys.readouterr().err
    assert f"fail  port                  {address}: Connection refused" in errors
    assert errors.splitlines()[-1].startswith("atoll: no coordinator at")


def test_the_doctor_knows_a_job_that_asks_for_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_authority("reef", tmp_path / "certs", days=1)
    issue_island(tmp_path / "certs", "a", tmp_path / "a", days=3)
    make_authority("reef", tmp_path / "other", days=1)
    job = RunningJob(tmp_path, options=("--tls", str(tmp_path / "certs" / "coordinator")))
    try:
        code, found = doctor(capsys, job.address)
        assert (code, found["coordinator"]["level"]) == (3, "fail")
        assert "asks for certificates, and none was shown" in found["coordinator"]["text"]
        code, found = doctor(capsys, job.address, "--tls", str(tmp_path / "other" / "operator"))
        assert (code, found["coordinator"]["level"]) == (3, "fail")
        assert "is not the coordinator of your certificate" in found["coordinator"]["text"]
        code, found = doctor(capsys, job.address, "--tls", str(tmp_path / "a"))
        assert code == 0
        assert found["certificate"]["level"] == "warn"  # three days
        assert found["reached from outside"]["text"] == "yes, as 127.0.0.1"
    finally:
        job.close()


# --- links, and chaos -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningJob]:
    running = RunningJob(tmp_path_factory.mktemp("job"), min_islands=3)
    for name in "abcd":
        running.join(name, light=True)
    yield running
    running.close()


def members(job: RunningJob) -> set[str]:
    views = job.views()
    return set(views[-1].partition(": ")[2].split(", ")) if views else set()


def bench_links(capsys: pytest.CaptureFixture[str], job: RunningJob) -> Any:
    capsys.readouterr()
    assert main(["bench", "links", "--json", job.address]) == 0
    return json.loads(capsys.readouterr().out)


def test_rates_and_round_trips_of_all_links(
    job: RunningJob, capsys: pytest.CaptureFixture[str]
) -> None:
    until(lambda: members(job) == set("abcd"), "four members")
    until(lambda: len(bench_links(capsys, job)["links"]) == 12, "all links to be measured")
    for link in bench_links(capsys, job)["links"]:
        assert link["rate_bytes_per_s"] > 1e6
        assert 0 < link["rtt_s"] < 1
    assert main(["bench", "links", job.address]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r" +a +b +c +d| +\w( +\w){3}", shown[3])
    assert len(re.findall(r"bit/s", "\n".join(shown))) == 12


@pytest.mark.skipif(bool(obstacle()), reason=f"NOT TESTED: islands cannot be cut off: {obstacle()}")
def test_an_island_that_is_cut_off_is_silent_and_not_reset(job: RunningJob) -> None:
    """The others wait out `silence_s`; nothing was closed. (Of two that cannot reach each other the
    younger goes at first, so one of the others may be gone as well.)"""
    until(lambda: members(job) == set("abcd"), "four members")
    cut = Cut(job.islands["d"].pid)

    def gone() -> bool:
        for _ in range(10):
            cut.refresh()
            time.sleep(POLL_S)
        return "d" not in members(job)

    try:
        until(gone, "the view without it")
        assert cut.sockets >= 4  # three links, the coordinator, what it listens on
    finally:
        cut.mend()
    assert re.search(r"d left \((silent|unreachable)\)", job.log("coordinator"))
    job.kill("d")


class Chaos:
    """`atoll chaos` in a process of its own; `told` has its lines."""

    def __init__(self, job: RunningJob, *options: str) -> None:
        command = [sys.executable, "-m", "atoll_launcher", "chaos", job.address, "--json"]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        self.told: list[dict[str, Any]] = []
        assert self._process.stdout is not None
        assert "seed" in self._process.stdout.readline()

    def read(self) -> str:
        """The next line's message."""
        assert self._process.stdout is not None
        self.told.append(json.loads(self._process.stdout.readline()))
        return str(self.told[-1]["message"])

    def end(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 143


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_chaos_that_ends_mends_what_it_holds(job: RunningJob) -> None:
    """The seed is one whose first freeze is long: it is ended in the middle of it."""
    seed = next(
        seed
        for seed in range(100)
        if next(steps(seed, 1.0, (Fault.FREEZE,))).hold_s > 0.9 * LONGEST_S
    )
    chaos = Chaos(job, "--seed", str(seed), "--faults", "freeze", "--mtbf", "1s")
    assert chaos.read().startswith("froze")
    frozen = job.islands[chaos.told[0]["island"]]
    until(lambda: is_stopped(frozen.pid), "it to be stopped")
    chaos.end()
    assert not is_stopped(frozen.pid)


def test_chaos_kills_until_one_is_left(job: RunningJob) -> None:
    until(lambda: len(members(job)) >= 2, "members")
    there = members(job)
    chaos = Chaos(job, "--seed", "3", "--faults", "kill", "--mtbf", "2s")
    while not chaos.read().startswith("nobody: 1"):
        pass
    chaos.end()
    killed = [one["island"] for one in chaos.told if one["island"]]
    assert len(killed) == len(set(killed)) == len(there) - 1
    assert set(killed) < there
    for name in killed:
        assert job.islands[name].wait(30) == -9


def test_chaos_leaves_jobs_alone_that_are_not_ones_own(
    job: RunningJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To another user nothing here is his."""
    until(lambda: members(job), "members")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert main(["chaos", job.address, "--faults", "kill", "--mtbf", "1s"]) == 2
    assert "not of your processes" in capsys.readouterr().err


def test_chaos_here_strikes_the_islands_of_this_machine_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one says that it is on another machine, and nobody dials it there."""
    job = RunningJob(tmp_path)
    try:
        elsewhere = {"ADVERTISE_HOST": "192.0.2.1", "INSECURE": "1", "DIAL_TIMEOUT_S": "1"}
        job.join("far", light=True, more=elsewhere)
        assert main(["chaos", job.address, "--here", "--faults", "kill"]) == 2
        assert "run chaos --here where one runs" in capsys.readouterr().err
        job.join("near", light=True)
        until(lambda: members(job) == {"far", "near"}, "both")
        assert main(["chaos", job.address, "--faults", "kill"]) == 2
        assert "far is not of your processes on this machine" in capsys.readouterr().err
        chaos = Chaos(job, "--here", "--faults", "kill", "--mtbf", "1s", "--spare", "0")
        assert chaos.read().startswith("killed")
        assert chaos.told[0]["island"] == "near"
        until(lambda: members(job) == {"far"}, "the view of the other")
        while not chaos.read().startswith("nobody: 1 members, none to strike here"):
            pass
        chaos.end()
        assert job.islands["far"].poll() is None
    finally:
        job.close()


def test_who_is_not_reached_from_outside_is_told_what_follows(
    coordinator: RunningJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens on one address of loopback, and is seen to come from another."""
    monkeypatch.setenv("ATOLL_BIND_HOST", "127.0.0.2")
    code, found = doctor(capsys, coordinator.address)
    assert code == 0
    assert found["reached from outside"]["level"] == "warn"
    assert found["reached from outside"]["text"].endswith("connection refused")
    assert "made from either side" in found["reached from outside"]["advice"]
