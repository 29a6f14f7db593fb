"""Real jobs of islands of two processes each, which FSDP2 joins, that lose everything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from test_restarted_jobs import HERE, PATIENCE_S, Run, starting

from atoll.checkpoint.places import open_place
from atoll.checkpoint.rules import round_of
from atoll_launcher.main import main as command

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240), pytest.mark.slow]

EVERY = 3
ISLANDS = ("island-0", "island-1")


class ShardedRun(Run):
    """Islands of two processes. Rounds to come to in all, and how."""

    script = HERE / "sharded_job.py"

    def __init__(self, folder: Path, url: Path, method: str, rounds: int, islands: int = 2) -> None:
        self.islands = ISLANDS[:islands]
        said = {"JOB_FOLDER": str(folder), "JOB_METHOD": method, "JOB_ROUNDS": str(rounds)}
        options = ("--nproc-per-node", "2", "--min-islands", str(islands))
        super().__init__(folder, str(url), islands, *options, ATOLL_CHECKPOINT_KEEP="2", **said)

    def lines(self, island: str, shard: int) -> list[dict[str, Any]]:
        path = self.folder / f"{island}.{shard}"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def rounds(self, shard: int) -> dict[int, str]:
        """What a shard held at the end of each round, which is the same on both islands."""
        by_island = [
            {line["round"]: line["held"] for line in self.lines(island, shard)}
            for island in self.islands
        ]
        for other in by_island[1:]:
            both = by_island[0].keys() & other.keys()
            assert all(by_island[0][round_] == other[round_] for round_ in both)
        return by_island[0]

    def begins(self, island: str = "") -> Any:
        """The round with which all processes began."""
        first = {self.lines(name, shard)[0]["round"] for name in self.islands for shard in range(2)}
        assert len(first) == 1
        return first.pop()


@pytest.fixture
def start() -> Iterator[Callable[..., ShardedRun]]:
    yield from starting(ShardedRun)


def parts_at(url: Path, shard: int) -> list[str]:
    """Newest first."""
    return sorted(open_place(str(url / f"shard-{shard}-of-2")).names(), reverse=True)


def killed_after(run: ShardedRun, url: Path, round_: int) -> None:
    """When all processes are that far, and the checkpoint before is written."""
    due = round_ // EVERY * EVERY

    def is_far() -> bool:
        written = [{round_of(name) for name in parts_at(url, shard)} for shard in range(2)]
        lines = [run.lines(island, shard) for island in ISLANDS for shard in range(2)]
        return all(due in each for each in written) and all(
            each and each[-1]["round"] >= round_ for each in lines
        )

    run.until(is_far, 2 * PATIENCE_S)  # four processes with FSDP take their time to start
    run.kill()


def same_again(first: ShardedRun, second: ShardedRun, rounds: range) -> None:
    """These rounds were made by both, the first time by a run that nothing had interrupted yet."""
    for shard in range(2):
        before, after = first.rounds(shard), second.rounds(shard)
        assert {r: before[r] for r in rounds} == {r: after[r] for r in rounds}


def is_exported(run: ShardedRun, url: Path) -> bool:
    """The parameters that the job ended with, put together."""
    to = run.folder / "exported"
    assert command(["export", str(url), "--to", str(to)]) == 0
    found = safetensors.torch.load_file(to / "model.safetensors")
    wanted = torch.load(run.folder / "model.pt")
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in wanted.items()
    )


def test_replicas_that_are_all_killed_go_on_bit_by_bit(
    start: Callable[..., ShardedRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = tmp_path / "run"
    first = start(tmp_path / "first", url, "replicas", 1000)
    killed_after(first, url, EVERY + 2)
    common = {round_of(name) for name in parts_at(url, 0)}
    common &= {round_of(name) for name in parts_at(url, 1)}
    newest = max(round_ or 0 for round_ in common)

    second = start(tmp_path / "second", url, "replicas", newest + EVERY + 1)
    assert second.process.wait(2 * PATIENCE_S) == 0, second.log()
    assert second.begins() == newest
    last = max(first.rounds(1))
    assert last >= newest + 2
    same_again(first, second, range(newest, min(last, newest + EVERY + 1) + 1))
    (told,) = second.events("restored")
    assert f"restored step {newest} from {url}/shard-0-of-2/" in told["message"]
    # Every EVERY steps, and once more at the end.
    assert [round_of(name) for name in parts_at(url, 1)[:2]] == [newest + EVERY + 1, newest + EVERY]
    assert command(["checkpoints", "verify", str(url)]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows[0] == [str(newest + EVERY + 1), "whole"]
    assert is_exported(second, url)


def test_what_one_shard_alone_has_written_is_passed_over(
    start: Callable[..., ShardedRun], tmp_path: Path
) -> None:
    """As after a kill between the two shards' writes. The job goes on from the state of the one
    before, with another number of islands; and the same round, written once more, fits nothing of
    what was left."""
    url = tmp_path / "run"
    first = start(tmp_path / "first", url, "diloco", 1000)
    killed_after(first, url, 2 * EVERY + 1)
    for name in parts_at(url, 1):
        if (round_of(name) or 0) > EVERY:
            shutil.rmtree(url / "shard-1-of-2" / name)
    alone = [name for name in parts_at(url, 0) if round_of(name) == 2 * EVERY]
    assert len(alone) == 1

    second = start(tmp_path / "second", url, "diloco", 2 * EVERY, 1)
    assert second.process.wait(2 * PATIENCE_S) == 0, second.log()
    assert second.begins() == EVERY
    assert second.events("parity") == []
    same_again(first, second, range(EVERY, EVERY + 1))
    (other,) = (name for name in parts_at(url, 1) if round_of(name) == 2 * EVERY)
    again = [name for name in parts_at(url, 0) if round_of(name) == 2 * EVERY]
    assert alone[0] in again
    assert [name[:-8] == other[:-8] for name in again if name not in alone] == [True]
    assert alone[0][:-8] != other[:-8]
    assert is_exported(second, url)
