"""Which pass a worker makes next. Pure; the order changes memory and waiting, and not one bit.

GPipe (arXiv 1811.06965): all forward passes, then all backward passes. 1F1B (PipeDream-Flush, arXiv
2006.09503): backward passes as soon as they can be made, and no more passes under way than keep all
workers from a stage to the end at work. Interleaved 1F1B (arXiv 2104.04473): the same where workers
have several stages in turns; the pipeline fills and empties in smaller pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, get_args

from atoll.errors import MisuseError

Schedule = Literal["gpipe", "1f1b"]

Pass = tuple[Literal["forward", "backward"], int, int]
"""(kind, which of the worker's stages, micro-batch)."""

Able = list[tuple[int, int]]
"""(which of the worker's stages, micro-batch): passes that can be made now."""


def checked(schedule: str) -> Schedule:
    """Raises MisuseError for a name that is not one."""
    for known in get_args(Schedule):
        if schedule == known:
            return known  # type: ignore[no-any-return]
    raise MisuseError(f"no schedule {schedule!r}; there are {', '.join(get_args(Schedule))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """In which order all workers pass micro-batches, and how many of them one may have under way.

    ranks: by micro-batch; the first that can be passed is. turn: so many micro-batches, in this
    order, go through one of a worker's stages before the first of them comes to its next. most: of
    one worker, with 1F1B, counted in passes whose way back is not made.
    """

    most: int
    ranks: Mapping[int, int]
    turn: int


def order(shares: Sequence[Sequence[Sequence[int]]], group: int, chunks: int) -> Order:
    """For the workers of one group. shares: by group and worker. chunks: stages of each group."""
    workers = [len(own) for own in shares]
    return Order(
        most=most_under_way(workers, group, chunks),
        ranks=ranks(shares),
        turn=len(workers) * min(workers),
    )


def ranks(shares: Sequence[Sequence[Sequence[int]]]) -> dict[int, int]:
    """The order in which all stages pass micro-batches: the workers of the group with the fewest
    go through their own side by side.

    shares: by group and worker. Where groups have different numbers of workers, one that went by
    numbers would feed one worker of the next stage while another waits.
    """
    fewest = min(shares, key=len)
    places = sorted((place, mb) for own in fewest for place, mb in enumerate(own))
    return {micro_batch: rank for rank, (_, micro_batch) in enumerate(places)}


def most_under_way(workers: Sequence[int], group: int, chunks: int = 1) -> int:
    """Passes of one worker of a group, so that everybody from it to the end has one: as many as
    there are groups after it and itself, where all have equally many workers.

    With several stages a group: what fills the pipeline before the first comes back, twice the way
    to the last group and all other turns (arXiv 2104.04473, section 2.2), and the one under way.
    workers: of each group.
    """
    after = sum(workers[group + 1 :])
    if chunks == 1:
        return -(-(workers[group] + after) // workers[group])
    return -(-(2 * after + (chunks - 1) * sum(workers)) // workers[group]) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What a worker has to pass of one of its stages: micro-batches.

    forwards, backwards: those whose passes it has still to make. inputs, gradients: those that it
    has what it needs for, from below and from above. tapes: forward passes made whose backward pass
    is not.
    """

    forwards: AbstractSet[int]
    backwards: AbstractSet[int]
    inputs: AbstractSet[int]
    gradients: AbstractSet[int]
    tapes: AbstractSet[int]


def next_pass(schedule: Schedule, stretches: Sequence[Stretch], order: Order) -> Pass | None:
    """The next pass of one worker; None while it has to wait, or has nothing left.

    stretches: its stages, the first of the pipeline first. With 1F1B a worker fills up to
    `order.most` passes under way, and then makes one back and one forth. Beyond that only its
    first stage waits: what has entered the pipeline goes through to its end and back, whatever
    else there is, so no order of arrival and no share of the work blocks a pipeline.
    """

    def forward(able: Able) -> Pass:
        return "forward", *min(able, key=lambda one: (turn(one), one[0], rank(one)))

    def backward(able: Able) -> Pass:
        return "backward", *min(able, key=lambda one: (turn(one), -one[0], rank(one)))

    def rank(one: tuple[int, int]) -> int:
        return order.ranks[one[1]]

    def turn(one: tuple[int, int]) -> int:
        return rank(one) // order.turn

    forth = _able(each.forwards & each.inputs for each in stretches)
    back = _able(each.backwards & each.gradients & each.tapes for each in stretches)
    match schedule:
        case "gpipe":
            if any(each.forwards for each in stretches):
                return forward(forth) if forth else None
        case "1f1b":
            under_way = sum(len(each.tapes & each.backwards) for each in stretches)
            deeper = [one for one in forth if one[0] > 0]
            if forth and under_way < order.most:
                return forward(forth)
            if not back and deeper:
                return forward(deeper)
    return backward(back) if back else None


def _able(by_stage: Iterable[AbstractSet[int]]) -> Able:
    return [(index, mb) for index, able in enumerate(by_stage) for mb in able]
