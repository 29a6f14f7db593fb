"""One compute stream and one first-come-first-served link per island, over whole periods.

A step of a model of L layers is 3L - 1 equal units: forward through the layers, then for each layer
from the last one its backward by activation and by weight; the first layer needs none by
activation. An exchange may start when a unit is done, and a unit of a later step waits for it.
What an exchange takes of a link it takes after those before it (`busy_s`), and it has arrived
everywhere a latency later. Nothing else happens, so nothing between these points is looked at: the
clock of all islands jumps from point to point, as an array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from atoll.planning.network import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cost:
    """What an exchange takes, by island or of all alike.

    busy_s: of the island's link. latency_s: until the last byte is there and the op is committed.
    group: [islands], who exchanges with whom; None: all with all. A group begins when its last
    member does.
    """

    busy_s: Floats | float
    latency_s: Floats | float
    group: Ints | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exchange:
    """One exchange of a period.

    It may start when `ready` units of step `step` are done (0: when the step has all that its first
    unit waits for). After `needed` units of step `needed_in` the next unit waits for it. Steps
    count from the period's first, `needed_in` may lie in a later one. fragment: exchanges of one
    number are one fragment's.
    cost: of the exchange in the period of this number.
    """

    step: int
    ready: int
    needed_in: int
    needed: int
    fragment: int
    cost: Callable[[int], Cost]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """What happens in each period of `every` steps of `units` units."""

    every: int
    units: int
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timing:
    """period_s: [islands], of a period in the long run. sync_s: of the fragment that takes longest,
    from its first exchange's readiness on the last island to its last one's end."""

    period_s: Floats
    sync_s: float


# In this order at one position: what ends a step may start before the next step waits.
_MARK, _START, _WAIT, _START_AFTER_WAITS = range(4)
STEADY = 1e-9


def simulate(schedule: Schedule, step_s: Floats, *, warm_up: int = 4, most: int = 40) -> Timing:
    """Runs periods until one takes as long as the one before, at most so many.

    If none does (pairs change in every period, say), the second half of the periods counts.
    """
    run = _Run(schedule, step_s)
    marks = [run.until_period(0)]
    while len(marks) <= most:
        marks.append(run.until_period(len(marks)))
        if len(marks) > warm_up and _alike(marks[-1] - marks[-2], marks[-2] - marks[-3]):
            return Timing(period_s=marks[-1] - marks[-2], sync_s=run.sync_s(1))
    half = most // 2
    return Timing(period_s=(marks[-1] - marks[half]) / (most - half), sync_s=run.sync_s(half))


def clocks(schedule: Schedule, step_s: Floats, periods: int) -> Floats:
    """[periods + 1, islands]: when each island begins its first, second, ... step of each period.

    Before it waits for anything that this step needs.
    """
    run = _Run(schedule, step_s)
    return np.stack([run.until_period(period) for period in range(periods + 1)])


def _alike(one: Floats, other: Floats) -> bool:
    return bool(np.all(np.abs(one - other) <= STEADY * one))


class _Run:
    def __init__(self, schedule: Schedule, step_s: Floats) -> None:
        self._schedule = schedule
        self._unit_s = step_s / schedule.units
        self._now = np.zeros(len(step_s))  # by island: its clock at `position`
        self._free = np.zeros(len(step_s))  # by island: when its link is free
        self._position = 0  # in units
        self._done: dict[tuple[int, int], Floats] = {}  # by exchange and period
        # By period: by fragment, from when to when.
        self._spans: list[dict[int, tuple[float, float]]] = []
        self._points: list[tuple[int, int, int, int]] = []  # position, kind, period, exchange

    def until_period(self, period: int) -> Floats:
        """Runs until a period begins; the islands' clocks then."""
        schedule, length = self._schedule, self._schedule.every * self._schedule.units
        begin = period * length
        for kind, step, unit, number in self._of_period():
            self._points.append((begin + step * schedule.units + unit, kind, period, number))
        self._points.append((begin, _MARK, period, 0))
        self._points.sort(reverse=True)
        self._spans.append({})
        while True:
            position, kind, of_period, number = self._points.pop()
            self._now = self._now + (position - self._position) * self._unit_s
            self._position = position
            if kind == _MARK:
                return self._now
            if kind == _WAIT:
                self._now = np.maximum(self._now, self._done.pop((number, of_period)))
            else:
                self._start(number, of_period)

    def sync_s(self, periods: int) -> float:
        """Mean over the last so many whole periods."""
        spans = [span for span in self._spans if span][-periods - 1 : -1] or self._spans
        longest = [max((end - begin for begin, end in s.values()), default=0.0) for s in spans]
        return float(np.mean(longest)) if longest else 0.0

    def _of_period(self) -> list[tuple[int, int, int, int]]:
        points = []
        for number, exchange in enumerate(self._schedule.exchanges):
            start = _START if exchange.ready else _START_AFTER_WAITS
            points.append((start, exchange.step, exchange.ready, number))
            points.append((_WAIT, exchange.needed_in, exchange.needed, number))
        return points

    def _start(self, number: int, period: int) -> None:
        exchange = self._schedule.exchanges[number]
        cost = exchange.cost(period)
        ready = np.maximum(self._now, self._free)
        begin = _latest(ready, cost.group)
        self._free = begin + cost.busy_s
        end = begin + _latest(np.broadcast_to(cost.busy_s, begin.shape), cost.group)
        done = end + cost.latency_s
        self._done[number, period] = done
        spans = self._spans[period]
        earlier = spans.get(exchange.fragment, (float("inf"), 0.0))
        spans[exchange.fragment] = (
            min(earlier[0], float(self._now.max())),
            max(earlier[1], float(done.max())),
        )


def _latest(values: Floats, group: Ints | None) -> Floats:
    """[islands]: the largest value of each island's group."""
    if group is None:
        return np.full(values.shape, values.max())
    latest = np.full(int(group.max()) + 1, -np.inf)
    np.maximum.at(latest, group, values)
    result: Floats = latest[group]
    return result
