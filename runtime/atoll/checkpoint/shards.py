"""Checkpoints of islands of several processes: which parts belong together, which may go. Pure.

Each shard has a folder of its own, `shard-0-of-2`, with its part of every checkpoint. A part is
called like a checkpoint, with a token of 24 digits: 16 are the *stamp*, which all parts of one
checkpoint have in common, 8 its writer's. The stamp says of which line and in which view the round
was made. A line is what follows from one beginning: parts that a job left before it was restarted
never fit what it writes after that, though the rounds have the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import xxhash

from atoll.checkpoint.rules import Known, round_of

_FOLDER = re.compile(r"shard-(\d{1,5})-of-(\d{1,5})")
_WORKER = re.compile(r"part-(\d{5})")
_PART = re.compile(r"round-\d{10,19}-([0-9a-f]{16})[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A checkpoint of which every shard has its part. names: the parts', by shard."""

    round: int
    stamp: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a shard has. held: the round of the state that it holds already, 0: none. whole: the
    newest round that any of its parts' writers knew to be whole."""

    held: int
    whole: int
    parts: tuple[Known, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """versions: to be tried in turn; none: the shards go on from what they hold. may_keep: they may
    do so, too, if all versions turn out to be damaged. problem: why nothing is right, "" if
    something is."""

    versions: tuple[Version, ...] = ()
    may_keep: bool = False
    problem: str = ""


def folder_of(shard: int, shards: int) -> str:
    """The name of a shard's folder."""
    return f"shard-{shard}-of-{shards}"


def shards_of(folder: str) -> int | None:
    """How many shards the islands had that a folder is of; None: it is not a shard's."""
    match = _FOLDER.fullmatch(folder)
    return int(match[2]) if match else None


def worker_folder_of(number: int) -> str:
    """The name of the folder of an elastic island's worker of this number."""
    return f"part-{number:05d}"


def worker_of(folder: str) -> int | None:
    """The number of the elastic island's worker that a folder is of; None: it is not a worker's."""
    match = _WORKER.fullmatch(folder)
    return int(match[1]) if match else None


def token_of(line: str, epoch: int, own: str) -> str:
    """The token in a part's name. own: 8 hex digits that its writer draws."""
    return xxhash.xxh3_64_hexdigest(f"{line} {epoch}".encode()) + own


def line_of(tokens: Iterable[str]) -> str:
    """The line that begins with these tokens, one that each shard has drawn."""
    return xxhash.xxh3_64_hexdigest(" ".join(tokens).encode())


def stamp_of(name: str) -> str:
    """The stamp in a part's name; "" when it is not one of a part."""
    match = _PART.fullmatch(name)
    return match[1] if match else ""


def versions(parts: Sequence[Iterable[Known]]) -> list[Version]:
    """The checkpoints of which all shards have a part, newest first. parts: by shard."""
    return [
        _version(key, by_shard)
        for key, by_shard in _newest_first(_together(parts))
        if len(by_shard) == len(parts)
    ]


def torn(parts: Sequence[Iterable[Known]]) -> list[tuple[int, list[int]]]:
    """Rounds of which some shards have a part and others not, and who has none; newest first."""
    return [
        (round_, [shard for shard in range(len(parts)) if shard not in by_shard])
        for (round_, _), by_shard in _newest_first(_together(parts))
        if len(by_shard) < len(parts)
    ]


def choose(listings: Sequence[Listing]) -> Choice:
    """From which checkpoint an island begins. listings: of all its shards, by shard."""
    parts = [listing.parts for listing in listings]
    held = [listing.held for listing in listings]
    found = versions(parts)
    if len(set(held)) > 1:  # one had fetched what another had not, when their donors were lost
        if found:
            return Choice(versions=tuple(found))
        rounds = ", ".join(map(str, held))
        return Choice(problem=f"the shards hold different rounds ({rounds}), and none is saved")
    newer = tuple(version for version in found if version.round > held[0])
    if newer or found or held[0]:
        return Choice(versions=newer, may_keep=held[0] > 0)
    missing = torn(parts)
    if not missing or not any(listing.whole for listing in listings):
        return Choice()  # the job was ended before its first checkpoint was whole
    round_, without = missing[0]
    return Choice(
        problem=f"of none of {len(missing)} checkpoints the parts of all shards are there (of the "
        f"newest, round {round_}, {_named(without)} none)"
    )


def expendable(
    names: Sequence[Collection[str]], *, shard: int, keep: int, sure: str, line: Collection[str]
) -> list[str]:
    """Which of a shard's parts may be deleted: those older than the newest `keep` checkpoints that
    are whole in all shards, the one just written apart.

    names: of all parts, by shard. sure: the part just written; others may still write theirs. line:
    those of this shard's parts that the running job has written: the newest of them that is whole
    stays, since newer ones of others may be damaged. Before there is one, nothing goes.
    """
    parts = [[_known(name) for name in own] for own in names]
    whole = [version for version in versions(parts) if sure not in version.names]
    own = [version.names[shard] for version in whole if version.names[shard] in line]
    if not own:
        return []
    oldest = min(version.round for version in whole[: max(1, keep)])
    return sorted(
        name
        for name in names[shard]
        if (round_of(name) or 0) < oldest and name not in (sure, own[0])
    )


def stride(every: int, missed: int) -> int:
    """Rounds between two checkpoints when the last one took so long that `missed` were due
    meanwhile. Shards that are slow at different moments meet again on the coarser grid: each would
    otherwise write rounds that the others leave out."""
    return every << missed.bit_length()


def _known(name: str) -> Known:
    return Known(name=name, round=round_of(name) or 0, created_s=0.0)


_Key = tuple[int, str]
"""Round and stamp."""


def _together(parts: Sequence[Iterable[Known]]) -> dict[_Key, dict[int, Known]]:
    """By what they are of, and by shard. Of two that took each other's turn, the later one that
    can be read."""
    found: dict[_Key, dict[int, Known]] = {}
    for shard, own in enumerate(parts):
        for one in sorted(own, key=lambda one: (one.sound, one.created_s, one.name)):
            if stamp_of(one.name):
                found.setdefault((one.round, stamp_of(one.name)), {})[shard] = one
    return found


def _newest_first(
    found: dict[_Key, dict[int, Known]],
) -> list[tuple[_Key, dict[int, Known]]]:
    """By round; where it was made twice, the later one first."""

    def age(item: tuple[_Key, dict[int, Known]]) -> tuple[int, float, str]:
        (round_, stamp), by_shard = item
        return round_, max(one.created_s for one in by_shard.values()), stamp

    return sorted(found.items(), key=age, reverse=True)


def _version(key: _Key, by_shard: dict[int, Known]) -> Version:
    round_, stamp = key
    names = tuple(by_shard[shard].name for shard in sorted(by_shard))
    return Version(round=round_, stamp=stamp, names=names)


def _named(shards: Sequence[int]) -> str:
    listed = ", ".join(map(str, shards))
    return f"shard {listed} has" if len(shards) == 1 else f"shards {listed} have"
