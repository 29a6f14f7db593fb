"""Which pass a worker makes next: in order, within memory, and nobody waits for ever."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from atoll.elastic.schedule import (
    Order,
    Schedule,
    Stretch,
    checked,
    most_under_way,
    next_pass,
    order,
    ranks,
)
from atoll.errors import MisuseError


def stretch(**given: set[int]) -> Stretch:
    """Without what is not given."""
    empty: set[int] = set()
    names = ("forwards", "backwards", "inputs", "gradients", "tapes")
    return Stretch(**{name: given.get(name, empty) for name in names})


def test_all_workers_of_the_smallest_stage_begin_side_by_side() -> None:
    three, two = [[0, 1], [2, 3], [4, 5]], [[0, 1, 2], [3, 4, 5]]
    assert sorted(range(6), key=ranks([three, two]).__getitem__) == [0, 3, 1, 4, 2, 5]
    # By numbers the second of the three would feed the first of the two, and the other would wait.
    own = stretch(forwards={2, 3}, backwards={2, 3}, inputs={2, 3})
    assert next_pass("1f1b", [own], order([three, two], 0, 1)) == ("forward", 0, 3)


def test_as_many_under_way_as_there_are_stages_if_all_are_equal() -> None:
    assert [most_under_way([3, 3, 3, 3], stage) for stage in range(4)] == [4, 3, 2, 1]
    assert most_under_way([3, 4, 4, 4], 0) == 5, "three workers feed twelve"
    assert [most_under_way([2, 3], stage) for stage in range(2)] == [3, 1]
    # Twice the way to the end, and another turn of all: arXiv 2104.04473, and the one under way.
    assert [most_under_way([3, 3, 3, 3], stage, 2) for stage in range(4)] == [11, 9, 7, 5]


@pytest.mark.parametrize(
    ("schedule", "made"), [("gpipe", ("forward", 0, 2)), ("1f1b", ("backward", 0, 0))]
)
def test_what_goes_first_when_both_could(schedule: Schedule, made: object) -> None:
    in_order = Order(most=2, ranks={mb: mb for mb in range(4)}, turn=4)
    own = {"backwards": {0, 1, 2, 3}, "inputs": {2, 3}, "tapes": {0, 1}}
    both = stretch(**own, forwards={2, 3}, gradients={0})
    assert next_pass(schedule, [both], in_order) == made
    waits = next_pass(schedule, [stretch(**own, forwards={2})], in_order)
    assert waits == (None if schedule == "1f1b" else ("forward", 0, 2))


def test_a_worker_takes_turns_with_its_stages() -> None:
    """Two micro-batches through the first stage, the same two through the second, and so on."""
    in_order = Order(most=9, ranks={mb: mb for mb in range(4)}, turn=2)
    first = {"forwards": {2, 3}, "backwards": {0, 1, 2, 3}, "inputs": {2, 3}, "tapes": {0, 1}}
    second = {"forwards": {0, 1, 2, 3}, "backwards": {0, 1, 2, 3}}
    here = stretch(**second, inputs={1})
    assert next_pass("1f1b", [stretch(**first), here], in_order) == ("forward", 1, 1)
    # Back, the second of its stages is first.
    over = stretch(backwards={0, 1}, tapes={0, 1}, gradients={0, 1})
    assert next_pass("1f1b", [over, over], in_order) == ("backward", 1, 0)


def test_what_has_entered_the_pipeline_goes_through_whatever_is_under_way() -> None:
    in_order = Order(most=1, ranks={0: 0, 1: 1}, turn=2)
    first = stretch(forwards={1}, backwards={0, 1}, inputs={1}, tapes={0})
    second = stretch(forwards={0, 1}, backwards={0, 1}, inputs={0})
    assert next_pass("1f1b", [first, second], in_order) == ("forward", 1, 0)
    assert next_pass("1f1b", [first, stretch(backwards={0, 1})], in_order) is None


def test_other_names_are_no_schedules() -> None:
    with pytest.raises(MisuseError, match="there are gpipe, 1f1b"):
        checked("2f2b")


# ---- whole pipelines -----------------------------------------------------------------------------


@dataclass(slots=True)
class Seat:
    """One worker in one of its stages."""

    forwards: set[int]
    backwards: set[int]
    inputs: set[int] = field(default_factory=set)
    gradients: set[int] = field(default_factory=set)
    tapes: set[int] = field(default_factory=set)


class Pipeline:
    """Groups of workers, each with `chunks` stages, on a clock that only passes move."""

    def __init__(
        self,
        schedule: Schedule,
        workers: list[int],
        micro_batches: int,
        chunks: int,
        seconds: Callable[[str], float],
    ) -> None:
        self.schedule, self.seconds = schedule, seconds
        self.stages = len(workers) * chunks
        self.shares = [
            [[mb for mb in range(micro_batches) if mb % count == w] for w in range(count)]
            for count in workers
        ]
        self.orders = [order(self.shares, group, chunks) for group in range(len(workers))]
        self.seats = {
            (group, w): [Seat(forwards=set(own), backwards=set(own)) for _ in range(chunks)]
            for group, shares in enumerate(self.shares)
            for w, own in enumerate(shares)
        }
        self.made: list[tuple[str, int, int]] = []
        """(kind, stage, micro-batch), in the order in which they ended."""
        self.most_held = dict.fromkeys(self.seats, 0)

    def seat(self, stage: int, micro_batch: int) -> Seat:
        group = stage % len(self.shares)
        return self.seats[group, micro_batch % len(self.shares[group])][stage // len(self.shares)]

    def run(self) -> float:
        """To the end; returns when that is."""
        now, busy = 0.0, set[tuple[int, int]]()
        ends: list[tuple[float, tuple[int, int], str, int, int]] = []
        while True:
            for who, seats in self.seats.items():
                given = [self._stretch(who[0], c, seat) for c, seat in enumerate(seats)]
                chosen = next_pass(self.schedule, given, self.orders[who[0]])
                if chosen is not None and who not in busy:
                    busy.add(who)
                    heapq.heappush(ends, (now + self.seconds(chosen[0]), who, *chosen))
            if not ends:
                return now
            now = ends[0][0]
            while ends and ends[0][0] < now + 1e-9:
                _, who, kind, chunk, micro_batch = heapq.heappop(ends)
                busy.discard(who)
                self._end(kind, chunk * len(self.shares) + who[0], micro_batch)
                held = sum(len(seat.tapes) for seat in self.seats[who])
                self.most_held[who] = max(self.most_held[who], held)

    def _stretch(self, group: int, chunk: int, seat: Seat) -> Stretch:
        stage = chunk * len(self.shares) + group
        return Stretch(
            forwards=seat.forwards,
            backwards=seat.backwards,
            inputs=seat.forwards if stage == 0 else seat.inputs,
            gradients=seat.backwards if stage == self.stages - 1 else seat.gradients,
            tapes=seat.tapes,
        )

    def _end(self, kind: str, stage: int, micro_batch: int) -> None:
        self.made.append((kind, stage, micro_batch))
        seat = self.seat(stage, micro_batch)
        if kind == "forward":
            seat.forwards.remove(micro_batch)
            seat.tapes.add(micro_batch)
            if stage + 1 < self.stages:
                self.seat(stage + 1, micro_batch).inputs.add(micro_batch)
        else:
            seat.backwards.remove(micro_batch)
            seat.tapes.remove(micro_batch)
            if stage > 0:
                self.seat(stage - 1, micro_batch).gradients.add(micro_batch)

    def check(self, micro_batches: int) -> None:
        """Every pass once, none before what it needs."""
        at = {made: number for number, made in enumerate(self.made)}
        assert len(at) == len(self.made) == 2 * self.stages * micro_batches
        for (kind, stage, mb), number in at.items():
            if kind == "backward":
                assert at["forward", stage, mb] < number
                assert stage + 1 == self.stages or at["backward", stage + 1, mb] < number
            else:
                assert stage == 0 or at["forward", stage - 1, mb] < number


@pytest.mark.parametrize("chunks", [1, 2, 3])
@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("each", [1, 2])
def test_interleaved_pipelines_wait_as_little_as_the_papers(
    groups: int, each: int, chunks: int
) -> None:
    """Filling and emptying takes (groups - 1) passes there and back, each 1 / chunks as long."""
    micro_batches = 4 * groups * each
    pipeline = Pipeline(
        "1f1b",
        [each] * groups,
        micro_batches,
        chunks,
        lambda kind: (1.0 if kind == "forward" else 2.0) / chunks,
    )
    seconds = pipeline.run()
    pipeline.check(micro_batches)
    passes = micro_batches // each * chunks + groups - 1
    assert seconds == pytest.approx(3.0 * passes / chunks)
    for (group, _), held in pipeline.most_held.items():
        # A stage's last group may make room for what is on its way through.
        assert held <= pipeline.orders[group].most + (chunks > 1)
        if chunks == 1:
            assert held == groups - group


@pytest.mark.parametrize("seed", range(40))
def test_any_pipeline_comes_to_its_end(seed: int) -> None:
    """Any number of workers in a group, any time for a pass, any share of the work left."""
    rng = random.Random(seed)
    workers = [rng.randint(1, 4) for _ in range(rng.randint(2, 4))]
    micro_batches, chunks = rng.randint(1, 12), rng.randint(1, 4)
    schedule: Schedule = rng.choice(("1f1b", "1f1b", "gpipe"))
    pipeline = Pipeline(schedule, workers, micro_batches, chunks, lambda kind: rng.random())
    pipeline.run()
    pipeline.check(micro_batches)
    if schedule == "1f1b":
        for (group, _), held in pipeline.most_held.items():
            first = pipeline.orders[group].most
            assert held <= first * chunks, "what has entered is all that may be beyond the bound"


@pytest.mark.parametrize("seed", range(20))
def test_what_is_left_after_a_loss_comes_to_its_end(seed: int) -> None:
    """Some micro-batches have been all the way, others are somewhere on it, others not begun."""
    rng = random.Random(seed)
    workers = [rng.randint(1, 3) for _ in range(rng.randint(2, 3))]
    micro_batches, chunks = rng.randint(3, 9), rng.randint(1, 3)
    pipeline = Pipeline("1f1b", workers, micro_batches, chunks, lambda kind: rng.random())
    done = 0
    for mb in range(micro_batches):
        way = rng.randint(0, 2 * pipeline.stages)
        for number in range(way):
            if number < pipeline.stages:
                pipeline._end("forward", number, mb)
            else:
                pipeline._end("backward", 2 * pipeline.stages - 1 - number, mb)
        done += way
    pipeline.run()
    assert len(pipeline.made) > done or done == 2 * pipeline.stages * micro_batches
    pipeline.check(micro_batches)
