"""Real jobs that lose everything: launcher, coordinator and islands, restarted in other numbers."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import safetensors.torch
import torch
import xxhash
from job_worker import SAMPLES

from atoll.checkpoint.places import open_place
from atoll.checkpoint.read import Entry, survey
from atoll.data.journal import audit, parse, read

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240), pytest.mark.slow]

HERE = Path(__file__).parent
PATIENCE_S = 60.0


class Run:
    """One launcher with its coordinator and islands. `folder` gets logs, events and journals."""

    script = HERE / "job_worker.py"

    def __init__(self, folder: Path, url: str, islands: int, *options: str, **env: str) -> None:
        folder.mkdir()
        self.folder = folder
        command = [
            *(sys.executable, "-m", "atoll_launcher.main", "run", "--standalone", "--plain"),
            *("--islands", str(islands), "--threads", "1", "--job", "reef"),
            *("--log-dir", str(folder), "--events", str(folder / "events.jsonl"), *options),
            str(self.script),
        ]
        settings = {
            "ATOLL_CHECKPOINT_URL": url,
            "ATOLL_CHECKPOINT_EVERY": "3",
            "ATOLL_CHECKPOINT_KEEP": "1000",
        }
        with (folder / "launcher.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **settings, **env}
            )

    def events(self, kind: str) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def until(self, what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            found = what()
            if found:
                return found
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)
        raise AssertionError(f"nothing of the kind in {patience_s} s\n{self.log()}")

    def until_round(self, number: int) -> None:
        self.until(lambda: max((e["round"] for e in self.events("round")), default=0) >= number)

    def log(self) -> str:
        return (self.folder / "launcher.log").read_text()[-4000:]

    def pids(self) -> dict[str, int]:
        return {event["island"]: event["pid"] for event in self.events("started")}

    def begins(self, island: str) -> list[tuple[int, str]]:
        """(round, digest of the state) of each start of an island."""
        text = (self.folder / f"{island}.log").read_text()
        return [(int(r), digest) for r, digest in re.findall(r"BEGINS (\d+) ([0-9a-f]+)", text)]

    def first_round(self) -> int:
        return min(
            parse(line).round
            for path in self.folder.glob("ledger-*.jsonl")
            for line in path.read_text().split("\n")[:-1]
            if "restored" not in line
        )

    def kill(self) -> None:
        """Everything at once: islands do not outlive their launcher."""
        pids = [
            pid for event in self.events("started") for pid in event.get("pids", [event["pid"]])
        ]
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        end = time.monotonic() + PATIENCE_S
        while any(_lives(pid) for pid in pids):
            assert time.monotonic() < end
            time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


AnyRun = TypeVar("AnyRun", bound=Run)


def starting(kind: type[AnyRun]) -> Iterator[Callable[..., AnyRun]]:
    """Starts runs of this kind; what has not ended by then is killed."""
    runs: list[AnyRun] = []

    def begin(*args: Any, **kwargs: Any) -> AnyRun:
        runs.append(kind(*args, **kwargs))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    yield from starting(Run)


def digest_of(url: str, entry: Entry) -> str:
    """Of what the files hold, as the worker computes it of what it holds."""
    parts = []
    for group in ("parameters", "momentum"):
        loaded = safetensors.torch.load_file(Path(url) / entry.name / f"{group}-00000.safetensors")
        parts.append(torch.cat([loaded[n].reshape(-1) for n in ("weight", "bias")]))
    return xxhash.xxh3_128_hexdigest(b"".join(part.numpy().tobytes() for part in parts))


@pytest.mark.parametrize(
    ("before", "after", "stored"), [(3, 2, True), (1, 3, False)], ids=["3-to-2", "1-to-3"]
)
def test_a_job_is_restarted_with_another_number_of_islands(
    start: Callable[..., Run], tmp_path: Path, before: int, after: int, stored: bool
) -> None:
    url = str(tmp_path / "run")
    store = ("--store", str(tmp_path / "job.db")) if stored else ()
    first = start(tmp_path / "first", url, before, *store)
    first.until(lambda: len(first.events("checkpoint")) >= 2)
    first.until_round(8)
    first.kill()
    newest = survey(open_place(url))[0]
    assert newest.round >= 6
    wanted = digest_of(url, newest)

    second = start(tmp_path / "second", url, after, *store)
    assert second.process.wait(PATIENCE_S) == 0, second.log()
    # The job begins with all of them, so none comes later.
    begun = [second.begins(f"island-{number}")[0] for number in range(after)]
    assert begun == [(newest.round, wanted)] * after
    assert second.first_round() == newest.round + 1
    (told,) = second.events("restored")
    assert f"restored round {newest.round} from" in told["message"]
    found = audit(read(first.folder, second.folder), samples=SAMPLES, passes=1)
    assert found.problems == ()
    assert second.events("parity") == []
    last = survey(open_place(url))[0]
    assert last.round == found.rounds  # the last one is written at the end


@pytest.mark.timeout(900)
def test_a_job_is_killed_again_and_again(start: Callable[..., Run], tmp_path: Path) -> None:
    """Each time somewhere in or after a write, each time with another number of islands. More:
    CHECKPOINT_TEST_KILLS=20 CHECKPOINT_TEST_SEED=1."""
    kills, seed = (int(os.environ.get(f"CHECKPOINT_TEST_{n}", 2)) for n in ("KILLS", "SEED"))
    chance = random.Random(seed)
    url = str(tmp_path / "run")
    runs: list[Run] = []
    for number in range(kills):
        run = start(tmp_path / f"run-{number}", url, chance.randint(1, 3))
        runs.append(run)
        run.until(lambda run=run: run.events("checkpoint") or run.process.poll() is not None)
        time.sleep(chance.uniform(0.0, 0.3))
        run.kill()
    runs.append(start(tmp_path / "last", url, 2))
    assert runs[-1].process.wait(PATIENCE_S) == 0, runs[-1].log()
    assert [run.events("parity") for run in runs] == [[] for _ in runs]
    assert [run.events("checkpoint_damaged") for run in runs] == [[] for _ in runs]
    assert all(len(run.events("restored")) == 1 for run in runs[1:])
    found = audit(read(*(run.folder for run in runs)), samples=SAMPLES, passes=1)
    assert found.problems == ()


def test_islands_that_all_die_go_on_from_the_checkpoint(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    """Their coordinator lives, and starts them again."""
    url = str(tmp_path / "run")
    run = start(tmp_path / "first", url, 2)
    run.until(lambda: len(run.events("checkpoint")) >= 1)
    run.until_round(5)
    for pid in run.pids().values():
        os.kill(pid, signal.SIGKILL)
    run.until(lambda: run.events("restored"))
    assert run.process.wait(2 * PATIENCE_S) == 0, run.log()
    found = audit(read(run.folder), samples=SAMPLES, passes=1)
    assert found.problems == ()
    assert run.events("parity") == []
    assert run.events("state_lost") != []


def test_the_next_oldest_writes_when_the_writer_dies(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    url = str(tmp_path / "run")
    run = start(tmp_path / "first", url, 2, "--max-restarts", "0")
    run.until(lambda: survey(open_place(url)))
    writer = str(survey(open_place(url))[0].manifest.island)  # type: ignore[union-attr]
    os.kill(run.pids()[writer], signal.SIGKILL)
    run.process.wait(PATIENCE_S)
    manifests = [entry.manifest for entry in survey(open_place(url))]
    assert all(manifest is not None for manifest in manifests)
    by_round = {m.round: m.island for m in manifests if m is not None}
    assert len(by_round) == len(manifests)  # exactly one wrote each of them
    assert by_round[min(by_round)] == writer
    assert by_round[max(by_round)] != writer
    assert audit(read(run.folder), samples=SAMPLES, passes=1).problems == ()


def test_a_full_disk_does_not_stop_a_job(
    start: Callable[..., Run], tmp_path: Path, small_disk: Path
) -> None:
    """Two checkpoints of 0.48 MB fit, and none is ever deleted."""
    run = start(tmp_path / "first", str(small_disk / "run"), 2)
    assert run.process.wait(2 * PATIENCE_S) == 0, run.log()
    failures = run.events("checkpoint_failed")
    assert len(failures) >= 2
    assert "No space left on device; training goes on" in failures[0]["message"]
    assert audit(read(run.folder), samples=SAMPLES, passes=1).problems == ()
    assert len(os.listdir(small_disk / "run")) == 2
    assert run.events("state_lost") == []
