"""Which checkpoints are due, what they are called, which may go. Pure functions.

A checkpoint is called `round-0000000120-1f3c9a2e`: its round, and a token that its writer draws
anew for every attempt. Two writers never share a name, so they cannot harm each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

PART_BYTES = 32 << 20
"""A file holds so much, or one tensor that is larger: it bounds the memory that writing takes."""

_NAME = re.compile(r"round-(\d{10,19})-([0-9a-f]{8,32})")
_FILE = re.compile(r"[a-z][a-z0-9_]{0,63}-\d{5,9}\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A checkpoint that is there. `created_s`: Unix time, by its writer. `sound`: its manifest can
    be read; one that cannot is not known to be of use to anybody."""

    name: str
    round: int
    created_s: float
    sound: bool = True


def name_of(round_: int, token: str) -> str:
    """The name of a checkpoint; `token`: 8 to 32 hex digits."""
    return f"round-{round_:010d}-{token}"


def round_of(name: str) -> int | None:
    """The round in a checkpoint's name; None when it is not the name of one."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def file_of(group: str, number: int) -> str:
    """The name of part `number` of a group of tensors."""
    return f"{group}-{number:05d}.safetensors"


def is_file_name(name: str) -> bool:
    """Whether a manifest may name a file so: never a path."""
    return _FILE.fullmatch(name) is not None


def is_due(round_: int, every: int) -> bool:
    """Whether the end of this round calls for a checkpoint."""
    return round_ > 0 and round_ % every == 0


def newest_first(known: Iterable[Known]) -> list[Known]:
    """By round; where a round was written twice (after a restart, say), the later one first."""
    return sorted(known, key=lambda one: (one.round, one.created_s, one.name), reverse=True)


def expendable(known: Sequence[Known], *, keep: int, sure: str) -> list[str]:
    """The names that may be deleted, oldest first: all but the newest `keep`, and never `sure`.

    sure: the checkpoint that was just written and read back. A newer one may turn out to be
    damaged, so it is kept whatever else there is. Those that are not sound do not count, and go
    when they are older than all that stay.
    """
    sound = newest_first(one for one in known if one.sound)
    if all(one.name != sure for one in sound):
        return []  # it is not there: nothing else is to go
    stay, rest = sound[: max(1, keep)], sound[max(1, keep) :]
    oldest = min(one.round for one in stay)
    rest += [one for one in known if not one.sound and one.round < oldest]
    return [one.name for one in reversed(newest_first(rest)) if one.name != sure]


def parts(sizes: Mapping[str, int]) -> list[list[str]]:
    """Splits named tensors (bytes of each) into the files of a group, in their order."""
    found: list[list[str]] = []
    room = 0
    for name, nbytes in sizes.items():
        if not found or nbytes > room:
            found.append([])
            room = PART_BYTES
        found[-1].append(name)
        room -= nbytes
    return found
