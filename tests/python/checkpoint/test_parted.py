"""Shards of one island, a thread each: what they write in parts and begin from together."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from test_places import edit, flip

from atoll.checkpoint.meeting import Meeting
from atoll.checkpoint.parted import Parted
from atoll.checkpoint.places import open_place
from atoll.checkpoint.read import Restored
from atoll.checkpoint.write import Origin, Written, write
from atoll.errors import CheckpointError, ConfigError, Expelled, MisuseError
from states import Reader, snapshot

ORIGIN = Origin(job="reef", island="island-0", software="test")
MANY_S = 20.0


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch.distributed's, as if it had been initialized."""
    from torch.distributed import distributed_c10d

    held = dist.HashStore()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: held)
    return held


@pytest.fixture(params=["folder", "memory", "fsspec"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {
        "folder": str(tmp_path / "deep" / "run"),
        "memory": f"memory://{secrets.token_hex(8)}/run",
        "fsspec": f"local://{tmp_path}/run",
    }[request.param]


class Island:
    """Both shards of an island, which begin at `url`; what each of them got, or raised."""

    def __init__(self, url: str, *, held: tuple[int, ...] = (0, 0), job: str = "reef") -> None:
        meetings = [
            Meeting("a", shard, len(held), timeout_s=MANY_S, ended=lambda: None)
            for shard in range(len(held))
        ]
        self.shards = [Parted(url, s, len(held), meeting) for s, meeting in enumerate(meetings)]
        self.readers = [Reader() for _ in held]
        with ThreadPoolExecutor(len(held)) as pool:
            found = [pool.submit(self._restore, s, held[s], job) for s in range(len(held))]
            self.errors = [each.exception(MANY_S) for each in found]
            got = [None if each.exception() else each.result() for each in found]
        self.restored: list[Restored | None] = got

    def _restore(self, shard: int, held: int, job: str) -> Restored | None:
        reader = self.readers[shard]
        return self.shards[shard].restore(
            job=job,
            newer_than=held,
            begin=reader.begin,
            on_damaged=lambda name, problem: reader.damaged.append((name, problem)),
        )

    @property
    def round(self) -> int | None:
        """What all have begun with, each with its own part's bits."""
        assert self.errors == [None] * len(self.shards)
        rounds = {None if one is None else one.manifest.round for one in self.restored}
        assert len({parted.line for parted in self.shards}) == len(rounds) == 1
        found = rounds.pop()
        for shard, reader in enumerate(self.readers):
            assert found is None or reader.holds(found, 1 + shard)
        return found

    def save(self, shard: int, round_: int, epoch: int = 1) -> Written:
        parted = self.shards[shard]
        lent = snapshot(round_, 1 + shard)
        part = parted.part(parted.line)
        return write(parted.place, lent, ORIGIN, epoch=epoch, part=part)

    def save_all(self, *rounds: int) -> list[Written]:
        return [self.save(shard, each) for each in rounds for shard in range(len(self.shards))]

    def rounds(self, shard: int) -> list[str]:
        return sorted(self.shards[shard].place.names())


def test_all_begin_with_the_newest_that_all_have(url: str) -> None:
    island = Island(url)
    assert island.round is None
    island.save_all(10, 20)
    island.save(0, 30)  # killed before the other had written
    assert Island(url).round == 20
    island.save(1, 30)
    assert Island(url).round == 30
    assert Island(url, held=(25, 25)).round == 30
    assert Island(url, held=(30, 30)).round is None
    assert Island(url, held=(35, 0)).round == 30  # they must begin alike


def test_who_is_the_last_to_write_sees_that_it_is_whole(url: str) -> None:
    island = Island(url)
    assert not island.shards[0].is_whole(island.save(0, 10))
    last = island.save(1, 10)
    assert island.shards[1].is_whole(last)
    assert last.manifest.part is not None
    assert last.manifest.part.whole == 0
    later = island.save(0, 20).manifest.part
    assert later is not None
    assert (later.shard, later.shards, later.whole) == (0, 2, 10)


def damage_part(url: str, shard: int, written: Written, change: Callable[[bytes], Any]) -> None:
    place = open_place(f"{url}/shard-{shard}-of-2")
    edit(place, written.name, "momentum-00000.safetensors", change)


@pytest.mark.parametrize("shard", [0, 1])
def test_a_part_that_is_damaged_is_passed_over_by_all(url: str, shard: int) -> None:
    island = Island(url)
    parts = island.save_all(10, 20)
    damage_part(url, shard, parts[2 + shard], flip)
    after = Island(url)
    assert after.round == 10
    ((name, problem),) = after.readers[shard].damaged
    assert name == parts[2 + shard].name
    assert "content has changed" in problem
    assert after.readers[1 - shard].damaged == []

    damage_part(url, 1 - shard, parts[1 - shard], lambda data: None)
    for error in Island(url).errors:
        assert isinstance(error, CheckpointError)
        assert "none of the 2 checkpoints is whole; bring one back" in str(error)
    assert Island(url, held=(5, 5)).round is None  # they hold what follows nothing of these


def test_a_manifest_that_is_damaged(url: str) -> None:
    island = Island(url)
    parts = island.save_all(10, 20)
    edit(open_place(f"{url}/shard-1-of-2"), parts[3].name, "manifest.json", flip)
    after = Island(url)
    assert after.round == 10
    assert len(after.readers[1].damaged) == 1


def test_a_restarted_job_writes_a_line_of_its_own(url: str) -> None:
    first = Island(url)
    first.save_all(10)
    first.save(0, 20)
    second = Island(url)
    assert second.round == 10
    second.save(1, 20)  # killed again, the other way round: these two do not belong together
    assert Island(url).round == 10
    second.save(0, 20)
    assert Island(url).round == 20


def test_a_shards_folder_that_is_lost(url: str) -> None:
    island = Island(url)
    island.save(0, 10)
    assert Island(url).round is None  # the very first one was under way
    island.save(1, 10)
    parts = island.save_all(20)
    place = open_place(f"{url}/shard-1-of-2")
    for name in place.names():
        place.delete(name)
    for error in Island(url).errors:
        assert isinstance(error, CheckpointError)
        assert "of none of 2 checkpoints the parts of all shards are there" in str(error)
        assert "shard 1 has none" in str(error)
    assert parts[0].name in island.rounds(0)


def test_another_number_of_processes_is_refused(url: str) -> None:
    Island(url).save_all(10)
    (first, *_) = Island(url, held=(0, 0, 0)).errors
    assert isinstance(first, ConfigError)
    wanted = "checkpoints of islands of 2 processes, those of this job have 3 processes; start it "
    assert wanted + "with --nproc-per-node 2, or name another checkpoint_url" in str(first)
    with pytest.raises(ConfigError, match="of islands of 2 processes, those of this job have 1 pr"):
        Reader().restore(open_place(url))


def test_islands_of_one_process_were_here(url: str) -> None:
    write(open_place(url), snapshot(10), ORIGIN, epoch=1)
    for error in Island(url).errors:
        assert isinstance(error, ConfigError)
        assert "checkpoints of islands of 1 process, those of this job have 2" in str(error)


def test_another_jobs_parts(url: str) -> None:
    Island(url).save_all(10)
    for error in Island(url, job="lagoon").errors:
        assert isinstance(error, ConfigError)
        assert "holds checkpoints of job 'reef'" in str(error)


def test_a_folder_under_anothers_name_is_damage(url: str) -> None:
    island = Island(url)
    island.save_all(10)
    written = island.save(0, 20)
    part = written.manifest.part
    write(island.shards[1].place, snapshot(20), ORIGIN, epoch=1, part=part)
    after = Island(url)
    assert after.round == 10
    ((_, problem),) = after.readers[1].damaged
    assert problem == "the manifest is of shard 0 of 2"


def test_what_goes_and_what_stays(url: str) -> None:
    island = Island(url)
    for round_ in (10, 20, 30, 40):
        for shard, written in enumerate(island.save_all(round_)):
            island.shards[shard].retire(written, keep=2)
    # The newest is not counted by who writes it: others may still be writing theirs.
    assert [name[:16] for name in island.rounds(0)] == [f"round-00000000{r}" for r in (20, 30, 40)]
    assert [len(island.rounds(shard)) for shard in range(2)] == [3, 3]
    for round_ in (50, 60, 70):  # the other shard writes nothing any more
        island.shards[0].retire(island.save(0, round_), keep=2)
    assert Island(url).round == 40
    assert len(island.rounds(0)) == 5  # 30, 40: the newest two that both have; and those after


def test_what_cannot_be_read_back_is_taken_away(url: str) -> None:
    """Or the other shard would count on it."""
    island = Island(url)
    island.save_all(10)
    parts = island.save_all(20)
    damage_part(url, 1, parts[1], lambda data: data[:-1])
    with pytest.raises(OSError, match="cannot be read back"):
        island.shards[1].retire(parts[1], keep=1)
    assert island.shards[0].retire(parts[0], keep=1) == []
    assert island.shards[0].retire(island.save(0, 30), keep=1) == []
    assert Island(url).round == 10


# --- how they meet --------------------------------------------------------------------------------


def meeting(shard: int, timeout_s: float = MANY_S, ended: Any = None) -> Meeting:
    return Meeting("a", shard, 2, timeout_s=timeout_s, ended=lambda: ended)


def test_everybody_hears_everything_again_and_again() -> None:
    told: list[list[list[str]]] = [[], []]

    def shard(number: int) -> None:
        mine = meeting(number)
        told[number] += [mine.gather(lambda n=n: f"{number}:{n}") for n in range(3)]

    threads = [threading.Thread(target=shard, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MANY_S)
    assert told[0] == told[1] == [[f"0:{n}", f"1:{n}"] for n in range(3)]


def test_who_cannot_begin_says_so_to_the_others() -> None:
    def refuse() -> None:
        raise ConfigError("this is another model")

    with pytest.raises(ConfigError, match="another model"):
        meeting(0).gather(refuse)
    with pytest.raises(CheckpointError, match="shard 0 of this island cannot begin: this is anot"):
        meeting(1).gather(lambda: 1)


def test_nobody_waits_for_ever() -> None:
    with pytest.raises(CheckpointError, match="shard 1 of this island has not said"):
        meeting(0, timeout_s=0.05).gather(lambda: 1)
    with pytest.raises(Expelled, match="shard 1 was lost"):
        meeting(0, ended=Expelled("shard_lost", "shard 1 was lost")).gather(lambda: 1)


def test_without_torch_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    with pytest.raises(MisuseError, match="the 2 processes of this island must agree"):
        meeting(0).gather(lambda: 1)
