"""Which stage holds which layers: the quickest step within memory, then the fewest layers moved.

Pure. A stage of D workers makes ceil(G / D) micro-batches one after the other, so a step takes
max over the stages of ceil(G / D_p) * sum of its layers' costs / its speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.errors import MisuseError

MOST_WORKERS = 1024
"""An island is not larger than this."""

Cuts = tuple[int, ...]
"""Stage p holds the layers [cuts[p], cuts[p + 1])."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What each layer takes; one number for each layer.

    seconds: forward and backward of one micro-batch at speed 1. replicated_bytes: weights and kept
    activations, on every worker of the stage. sharded_bytes: what the stage's workers share
    (optimizer state and its shadow). memory_bytes: of one worker; None: no bound.
    """

    seconds: tuple[float, ...]
    replicated_bytes: tuple[int, ...] = ()
    sharded_bytes: tuple[int, ...] = ()
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        rows = [row for row in (self.replicated_bytes, self.sharded_bytes) if row]
        if any(len(row) != len(self.seconds) for row in rows) or min(self.seconds) < 0:
            raise MisuseError("costs need one number of at least 0 for each layer")


class _Sums:
    """Sums over stretches of layers, each in constant time."""

    def __init__(self, costs: Costs, chunks: int = 1) -> None:
        self._rows = []
        for row in (costs.seconds, costs.replicated_bytes, costs.sharded_bytes):
            sums: list[float] = [0]
            for number in row or [0] * len(costs.seconds):
                sums.append(sums[-1] + number)
            self._rows.append(sums)
        self._memory = None if costs.memory_bytes is None else costs.memory_bytes // chunks

    def seconds(self, first: int, last: int) -> float:
        return self._rows[0][last] - self._rows[0][first]

    def fits(self, first: int, last: int, workers: int) -> bool:
        if self._memory is None:
            return True
        replicated, sharded = (row[last] - row[first] for row in self._rows[1:])
        return replicated + math.ceil(sharded / workers) <= self._memory


def step_seconds(
    costs: Costs,
    cuts: Cuts,
    *,
    workers: Sequence[int],
    micro_batches: int,
    speeds: Sequence[float] | None = None,
) -> float:
    """How long the slowest stage takes. workers, speeds: one number for each stage."""
    sums = _Sums(costs)
    return max(
        -(-micro_batches // workers[p])
        * sums.seconds(cuts[p], cuts[p + 1])
        / (speeds[p] if speeds else 1.0)
        for p in range(len(workers))
    )


def split(
    costs: Costs,
    *,
    workers: Sequence[int],
    micro_batches: int,
    chunks: int = 1,
    speeds: Sequence[float] | None = None,
    before: Cuts | None = None,
    slack: float = 0.0,
) -> Cuts:
    """The cuts of the quickest plan; with `before`, of all plans within (1 + slack) of its time the
    one that moves the fewest layers out of their stages. O(P L^2).

    chunks: stages that each group of workers has, in turns; each may take its part of the time and
    of the memory. Raises MisuseError if there are more stages than layers, or memory suffices in no
    way.
    """
    layers, stages, groups = len(costs.seconds), len(workers) * chunks, list(workers)
    if stages > layers or min(workers) < 1:
        raise MisuseError(
            f"{layers} layers cannot be split over {stages} stages of {groups} workers: "
            "every stage needs a layer and a worker"
        )
    workers, speeds = groups * chunks, [*speeds] * chunks if speeds else None
    sums = _Sums(costs, chunks)

    def seconds(p: int, first: int, last: int) -> float:
        if not sums.fits(first, last, workers[p]):
            return math.inf
        passes = -(-micro_batches // workers[p])
        return passes * sums.seconds(first, last) / (speeds[p] if speeds else 1.0)

    best, cuts = _search(layers, stages, seconds, max)
    if cuts is None or best == math.inf:
        enough = memory_floor(costs, len(groups), chunks)
        way = (
            f"{enough} workers would do"
            if enough is not None and enough > sum(groups)
            else "more workers would not help; take more stages, or shrink the model"
        )
        raise MisuseError(
            f"{sum(groups)} workers are too few: no split of {layers} layers over stages of "
            f"{groups} fits in {costs.memory_bytes} bytes a worker; {way}"
        )
    if before is None or len(before) != stages + 1:
        return cuts
    bound = best * (1.0 + slack)

    def moved(p: int, first: int, last: int) -> float:
        if seconds(p, first, last) > bound:
            return math.inf
        return (last - first) - max(0, min(last, before[p + 1]) - max(first, before[p]))

    _, near = _search(layers, stages, moved, lambda a, b: a + b)
    return near or cuts


def _search(
    layers: int,
    stages: int,
    cost: Callable[[int, int, int], float],
    join: Callable[[float, float], float],
) -> tuple[float, Cuts | None]:
    """The cuts with the least joined cost of the stages; of equals, the lexicographically first."""
    best: list[tuple[float, Cuts] | None] = [None] * (layers + 1)
    best[0] = (0.0, (0,))
    for p in range(stages):
        after: list[tuple[float, Cuts] | None] = [None] * (layers + 1)
        for last in range(p + 1, layers - (stages - p - 1) + 1):
            for first in range(p, last):
                so_far = best[first]
                if so_far is None:
                    continue
                total = join(so_far[0], cost(p, first, last))
                if total == math.inf:
                    continue
                candidate = (total, (*so_far[1], last))
                known = after[last]
                if known is None or candidate < known:
                    after[last] = candidate
        best = after
    found = best[layers]
    return found if found is not None else (math.inf, None)


def memory_floor(costs: Costs, stages: int, chunks: int = 1) -> int | None:
    """The fewest workers, spread evenly over the stages, whose memory suffices; None if no number
    up to MOST_WORKERS does. chunks: as in `split`."""
    sums = _Sums(costs, chunks)

    def suffices(workers: int) -> bool:
        counts = spread(workers, stages) * chunks

        def cost(p: int, first: int, last: int) -> float:
            return 0.0 if sums.fits(first, last, counts[p]) else math.inf

        return _search(len(costs.seconds), stages * chunks, cost, max)[1] is not None

    return next((n for n in range(stages, MOST_WORKERS + 1) if suffices(n)), None)


def moved_layers(before: Cuts, after: Cuts) -> int:
    """How many layers change their stage."""
    return sum(
        (after[p + 1] - after[p])
        - max(0, min(after[p + 1], before[p + 1]) - max(after[p], before[p]))
        for p in range(len(after) - 1)
    )


def spread(workers: int, stages: int) -> tuple[int, ...]:
    """Workers of each stage, as even as goes, the first stages with one more."""
    if stages < 1 or workers < stages:
        raise MisuseError(f"{workers} workers are too few for {stages} stages")
    return tuple(workers // stages + (p < workers % stages) for p in range(stages))
