"""How much slower a step is after one loss, on a clock that only passes move: no machine is in it.

    .venv/bin/python bench/python/elastic_pipeline.py

Layouts, orders of passes and shares of micro-batches are those of a real island; a layer's passes
take 1 together (twice as long backward), and all else no time. So the pipeline's waiting is in
these numbers, which the planner's arithmetic leaves out.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from atoll.elastic.identity import Spine
from atoll.elastic.layout import Layout
from atoll.elastic.planner import step_seconds
from atoll.elastic.schedule import Schedule, Stretch, next_pass, order
from atoll.elastic.transition import cuts_of, even_costs, first_layout, improved, repaired


@dataclass(slots=True)
class Seat:
    """One worker in one of its stages: passes to make, and what has arrived for them."""

    forwards: set[int]
    backwards: set[int]
    inputs: set[int] = field(default_factory=set)
    gradients: set[int] = field(default_factory=set)
    tapes: set[int] = field(default_factory=set)

    def stretch(self, *, first: bool, last: bool) -> Stretch:
        return Stretch(
            forwards=self.forwards,
            backwards=self.backwards,
            inputs=self.forwards if first else self.inputs,
            gradients=self.backwards if last else self.gradients,
            tapes=self.tapes,
        )


def step_time(layout: Layout, schedule: Schedule) -> float:
    """Of a whole step, from the first pass to the last."""
    stages = layout.stages
    last = len(stages) - 1
    seats = {
        (worker, index): Seat(forwards=set(own), backwards=set(own))
        for index, stage in enumerate(stages)
        for worker, own in zip(stage.workers, stage.micro_batches, strict=True)
    }
    shares = [stage.micro_batches for stage in stages[: len(layout.groups)]]
    orders = [order(shares, group, layout.chunks) for group in range(len(shares))]
    now, busy = 0.0, set[str]()
    ends: list[tuple[float, str, str, int, int]] = []
    while True:
        for name in layout.workers:
            own = layout.stages_of(name)
            made = next_pass(
                schedule,
                [seats[name, i].stretch(first=i == 0, last=i == last) for i in own],
                orders[own[0]],
            )
            if name not in busy and made is not None:
                kind, place, micro_batch = made
                part = 1 / 3 if kind == "forward" else 2 / 3
                busy.add(name)
                seconds = part * len(stages[own[place]].layers)
                heapq.heappush(ends, (now + seconds, name, kind, own[place], micro_batch))
        if not ends:
            return now
        now = ends[0][0]
        while ends and ends[0][0] <= now + 1e-9:
            _, name, kind, index, micro_batch = heapq.heappop(ends)
            busy.discard(name)
            seat = seats[name, index]
            if kind == "forward":
                seat.forwards.discard(micro_batch)
                seat.tapes.add(micro_batch)
                if index < last:
                    above = stages[index + 1].worker_of(micro_batch)
                    seats[above, index + 1].inputs.add(micro_batch)
            else:
                seat.backwards.discard(micro_batch)
                seat.tapes.discard(micro_batch)
                if index > 0:
                    below = stages[index - 1].worker_of(micro_batch)
                    seats[below, index - 1].gradients.add(micro_batch)


SCHEDULES: tuple[tuple[str, Schedule, int], ...] = (
    ("gpipe", "gpipe", 1),
    ("1f1b", "1f1b", 1),
    ("interleaved", "1f1b", 2),
)
"""Name, schedule, and stages of each group of workers."""


def planned(layout: Layout, spine: Spine) -> float:
    return step_seconds(
        even_costs(spine),
        cuts_of(layout),
        workers=[len(stage.workers) for stage in layout.stages],
        micro_batches=spine.micro_batches,
    )


def main() -> None:
    for layers, groups, each, micro_batches in ((32, 4, 4, 48), (24, 2, 3, 12)):
        spine = Spine(seed=0, micro_batches=micro_batches, layer_sizes=(64,) * layers, vshards=each)
        names = [f"w{number:02}" for number in range(groups * each)]
        print(f"{layers} layers, {groups} stages of {each}, {micro_batches} micro-batches")
        healthy = {
            name: first_layout(spine, names, pipeline=groups, chunks=chunks)
            for name, _, chunks in SCHEDULES
        }
        seconds = {name: step_time(healthy[name], schedule) for name, schedule, _ in SCHEDULES}
        shown = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
        print(f"  a healthy step, in passes of a layer: {shown}")
        for dead in (names[0], names[-1]):
            stage = healthy["1f1b"].stage_index(dead) + 1
            for what in ("rerouted", "layers moved"):
                parts = []
                for name, schedule, _ in SCHEDULES:
                    after = repaired(healthy[name], set(names) - {dead}, spine)
                    if what != "rerouted":
                        after = improved(after, spine, even_costs(spine))
                    if name == "gpipe":
                        ratio = planned(healthy[name], spine) / planned(after, spine)
                        parts.append(f"planner {ratio:.3f}")
                    parts.append(f"{name} {seconds[name] / step_time(after, schedule):.3f}")
                print(f"  lost in stage {stage}, {what}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
