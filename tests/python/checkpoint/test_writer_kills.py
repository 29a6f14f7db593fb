"""Real writers and SIGKILL at random moments; a disk that is full."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
import writer_loop
from test_session_checkpoints import Method, make

from atoll.checkpoint.local import STALE_S, TEMPORARY
from atoll.checkpoint.places import open_place
from atoll.checkpoint.read import survey
from forked import forkserver
from states import Reader, save

KILLS = 15


@pytest.fixture(scope="module")
def spawn() -> ForkServerContext:
    return forkserver()


def _killed_once(
    spawn: Any, chance: random.Random, url: str, keep: int, in_a_write: bool
) -> tuple[int | None, bool]:
    """Lets a writer go on for a moment, until it is in the middle of a write if asked for, and
    kills it: (the last round that it said is durable, whether it was in the middle of a write)."""
    reader, writer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=writer_loop.loop, args=(url, writer, keep))
    process.start()
    writer.close()
    acknowledged = None
    assert wait([reader], 60)
    # Some are killed within the first writes, before anything was said.
    end = time.monotonic() + chance.uniform(0.0, 0.25)
    time.sleep(max(0.0, end - time.monotonic()))
    while in_a_write and not stopped_in_a_write(process.pid, url):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with open(os.dup(reader.fileno()), "rb") as file:
        lines = file.read().split(b"\n")
    numbers = [int(line) for line in lines[1:] if line]
    if numbers:
        acknowledged = numbers[-1]
    return acknowledged, bool(unfinished(url))


def stopped_in_a_write(pid: int, url: str) -> bool:
    """Stops a writer; whether that was in the middle of a write. It goes on if not."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while "State:\tT" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
    if any(path.name for left in unfinished(url) for path in left.iterdir()):
        return True
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.003)
    return False


def unfinished(url: str) -> list[Path]:
    """What writers have begun and not completed."""
    root = Path(url.removeprefix("local://"))
    hidden = list(root.glob(f"{TEMPORARY}round-*"))
    return hidden + [p for p in root.glob("round-*") if not (p / "manifest.json").exists()]


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("scheme", "keep"), [("", 1), ("", 3), ("local://", 2)])
def test_a_writer_is_killed_again_and_again(
    spawn: Any, tmp_path: Path, scheme: str, keep: int
) -> None:
    """In a folder, and through fsspec, where a manifest may be torn as well."""
    chance = random.Random(keep)
    url = f"{scheme}{tmp_path}/run"
    place = open_place(url)
    durable, in_the_middle = 0, 0
    for number in range(KILLS):
        acknowledged, torn = _killed_once(spawn, chance, url, keep, number % 3 == 0)
        in_the_middle += torn
        durable = max(durable, acknowledged or 0)
        reader = Reader()
        found = reader.restore(place)
        if scheme:
            assert all("manifest" in problem for _, problem in reader.damaged)
        else:
            assert reader.damaged == []
        if durable:
            assert found is not None
            assert found.manifest.round >= durable
            assert reader.holds(found.manifest.round, writer_loop.SCALE)
        for path in Path(place.url).glob(f"{TEMPORARY}*"):  # the next writer need not wait a minute
            os.utime(path, (0, time.time() - STALE_S - 1))
    assert durable > 3
    assert in_the_middle >= KILLS // 3
    # What the dead have left goes with the next that lives long enough.
    from atoll.checkpoint.write import retire

    for further in range(10, 10 + keep):
        retire(place, save(place, durable + further), keep)
    assert unfinished(url) == []
    whole = [entry for entry in survey(place) if entry.manifest is not None]
    assert len(whole) <= keep


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_writer_that_was_frozen_wakes_beside_its_successor(spawn: Any, tmp_path: Path) -> None:
    """As after a partition: the one that was given up goes on with its old round."""
    url = str(tmp_path / "run")
    writers = [Writer(spawn, url, keep=2)]
    try:
        while not stopped_in_a_write(writers[0].process.pid, url):
            pass
        (left,) = unfinished(url)
        os.utime(left, (0, time.time() - STALE_S - 1))  # as old as a dead writer's
        writers.append(Writer(spawn, url, keep=2))
        writers[1].until_rounds(4)
        assert left.is_dir()  # it is locked: somebody lives there
        os.kill(writers[0].process.pid, signal.SIGCONT)
        for writer in writers:
            writer.until_rounds(4)
    finally:
        for writer in writers:
            writer.kill()
    reader = Reader()
    found = reader.restore(open_place(url))
    assert found is not None
    assert reader.damaged == []
    assert reader.holds(found.manifest.round, writer_loop.SCALE)
    assert found.manifest.round >= max(writer.last for writer in writers)


class Writer:
    """A process of `writer_loop`."""

    def __init__(self, spawn: Any, url: str, keep: int) -> None:
        self._reader, writer = spawn.Pipe(duplex=False)
        self.process = spawn.Process(target=writer_loop.loop, args=(url, writer, keep))
        self.process.start()
        writer.close()
        self._lines = open(os.dup(self._reader.fileno()), "rb")  # noqa: SIM115 - closed by kill
        assert self._lines.readline() == b"begun\n"
        self.last = 0

    def until_rounds(self, count: int) -> None:
        for _ in range(count):
            assert wait([self._reader], 60)
            self.last = int(self._lines.readline())

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        self._lines.close()


def test_files_that_may_not_grow(spawn: Any, tmp_path: Path) -> None:
    save(open_place(str(tmp_path)), 10)
    reader, writer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=writer_loop.limited, args=(str(tmp_path), 30_000, writer))
    process.start()
    writer.close()
    assert wait([reader], 60)
    answer = os.read(reader.fileno(), 1000)
    process.join()
    assert b"File too large" in answer
    assert len(os.listdir(tmp_path)) == 1
    restored = Reader()
    assert restored.restore(open_place(str(tmp_path))) is not None
    assert restored.holds(10)


def test_a_full_disk(small_disk: Path) -> None:
    told: list[tuple[str, str]] = []
    checkpoints, count = make(small_disk / "run", told)
    method = Method()
    method.tensor = torch.randn(100_000)  # two fit, three do not
    for method.round in (1, 2, 3):
        checkpoints.round_over(method, epoch=1)
        assert checkpoints.finish(None, epoch=1, timeout_s=30)
    assert [kind for kind, _ in told] == ["checkpoint", "checkpoint", "checkpoint_failed"]
    assert "round 3: no checkpoint at" in told[2][1]
    assert "No space left on device; training goes on" in told[2][1]
    assert count("atoll_checkpoints_failed_total") == 1
    names = os.listdir(small_disk / "run")
    assert len(names) == 2
    assert not any(name.startswith(TEMPORARY) for name in names)
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    method.round = 4
    checkpoints.round_over(method, epoch=1)
    assert checkpoints.finish(None, epoch=1, timeout_s=30)
    assert [entry.round for entry in survey(open_place(str(small_disk / "run")))] == [4, 2, 1]


def test_writers_beside_each_other(tmp_path: Path) -> None:
    """Two that both think it is their turn, and delete what is old."""
    from atoll.checkpoint.write import retire

    errors: list[BaseException] = []

    def one() -> None:
        place = open_place(str(tmp_path))
        try:
            for round_ in range(1, 15):
                retire(place, save(place, round_), keep=2)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    reader = Reader()
    found = reader.restore(open_place(str(tmp_path)))
    assert found is not None
    assert found.manifest.round == 14
    assert reader.holds(14)
    assert reader.damaged == []
