"""When an island does what in a round: exchanges begin, exchanges are taken up. Pure.

Op k of a method with P fragments is of round k // P and of fragment k mod P. Fragment 0's closes
its round, and begins at the round's last step; the others' begin in the round after, at their
offsets (Streaming DiLoCo, arXiv 2501.18512, algorithm 2: t - t_p >= H). So every member has the
same ops in the same order, whatever its speed. When an op is taken up is each member's own affair.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Do(enum.IntEnum):
    """What is done. In this order, where several things are due after one step."""

    STAGE = 0
    """The island's own part of an exchange is put aside."""
    ABSORB = 1
    """The result of an exchange is taken up; waits for it."""
    LAUNCH = 2
    """What was staged is sent off."""
    ABSORB_AT_ONCE = 3
    """As ABSORB, of what has just been launched."""


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """After step `at` of the round, counted from 1. `index`: of the op."""

    at: int
    do: Do
    index: int


def fragment_of(index: int, fragments: int) -> int:
    """The fragment that op `index` exchanges."""
    return index % fragments


def round_of(index: int, fragments: int) -> int:
    """The round whose work op `index` carries."""
    return index // fragments


def closes(index: int, fragments: int) -> bool:
    """Whether op `index` ends its round: the data of the round is settled with it."""
    return index % fragments == 0


def launched_before(round_: int, fragments: int) -> int:
    """How many ops are launched before round `round_` begins."""
    return max(0, (round_ - 1) * fragments + 1)


def streaming(
    round_: int, offsets: Sequence[int], *, period: int, overlap: int
) -> tuple[Event, ...]:
    """What is due in a round of `period` steps, fragment p at `offsets[p]`, taken up `overlap`
    steps (tau) later. The first of the offsets is 0."""
    count = len(offsets)
    begins = [(at, (round_ - 1) * count + p) for p, at in enumerate(offsets) if p and round_ >= 1]
    begins.append((period, round_ * count))
    events = [Event(at, do, index) for at, index in begins for do in (Do.STAGE, Do.LAUNCH)]
    if not overlap:
        return tuple(sorted(events + [Event(at, Do.ABSORB_AT_ONCE, k) for at, k in begins]))
    # Those of the round before that are still under way come first.
    earlier = [(at, (round_ - 2) * count + p) for p, at in enumerate(offsets) if p and round_ >= 2]
    if round_ >= 1:
        earlier.append((period, (round_ - 1) * count))
    ends = [(at + overlap - period, k) for at, k in earlier] + [
        (at + overlap, k) for at, k in begins
    ]
    return tuple(
        sorted(events + [Event(at, Do.ABSORB, index) for at, index in ends if 0 < at <= period])
    )


def blocking(round_: int, *, period: int) -> tuple[Event, ...]:
    """One exchange at the end of a round, which is waited for."""
    return (
        Event(period, Do.STAGE, round_),
        Event(period, Do.LAUNCH, round_),
        Event(period, Do.ABSORB_AT_ONCE, round_),
    )


def a_round_late(round_: int, *, period: int, first_blocks: bool) -> tuple[Event, ...]:
    """One exchange at the end of a round, taken up at the end of the next one.

    first_blocks: that of the first round is waited for, and there is nothing to take up at the end
    of the second.
    """
    events = [Event(period, Do.STAGE, round_), Event(period, Do.LAUNCH, round_)]
    if first_blocks and round_ == 0:
        events.append(Event(period, Do.ABSORB_AT_ONCE, round_))
    elif round_ > (1 if first_blocks else 0):
        events.append(Event(period, Do.ABSORB, round_ - 1))
    return tuple(sorted(events))
