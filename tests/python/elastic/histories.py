"""Layouts of any shape, and losses at any moment, of islands in one process."""

from __future__ import annotations

import random
from dataclasses import replace

from atoll.elastic.identity import Spine
from atoll.elastic.layout import Layout
from atoll.elastic.local import Moment
from atoll.elastic.placement import place
from atoll.elastic.planner import Costs
from atoll.elastic.transition import first_layout


def names(count: int) -> list[str]:
    return [f"w{i}" for i in range(count)]


def drawn_layout(spine: Spine, rng: random.Random) -> Layout:
    """Any split of the layers, any number of workers in a group and of stages that they take turns
    with, any deal of micro-batches."""
    workers = names(rng.randint(1, 6))
    groups = rng.randint(1, min(len(workers), spine.layers))
    chunks = 1 if groups == 1 else rng.randint(1, spine.layers // groups)
    costs = Costs(seconds=tuple(rng.random() + 0.1 for _ in range(spine.layers)))
    layout = first_layout(spine, workers, pipeline=groups, chunks=chunks, costs=costs)
    dealt = []
    for group in layout.groups:
        own: list[list[int]] = [[] for _ in group]
        for micro_batch in range(spine.micro_batches):
            rng.choice(own).append(micro_batch)
        dealt.append(tuple(map(tuple, own)))
    return place(
        1,
        [
            replace(stage, micro_batches=dealt[index % groups])
            for index, stage in enumerate(layout.stages)
        ],
        spine,
    )


class Kills:
    """Kills workers at the nth time that something has happened."""

    def __init__(self, moment: Moment, nth: int, *dead: str) -> None:
        self._moment, self._left, self._dead = moment, nth, frozenset(dead)
        self.happened = False

    def __call__(self, moment: Moment) -> frozenset[str]:
        if moment == self._moment:
            self._left -= 1
            if self._left == 0:
                self.happened = True
                return self._dead
        return frozenset()


MOMENTS: list[tuple[Moment, int]] = [
    ("forward", 1),
    ("forward", 8),
    ("backward", 1),
    ("backward", 7),
    ("reduce", 4),
    ("prepare", 3),
    ("prepare", 30),
    ("commit", 1),
    ("commit", 3),
    ("apply", 1),
    ("apply", 4),
    ("gather", 1),
    ("gather", 20),
]
