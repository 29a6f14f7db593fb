"""Time and chance: a queue of things to happen and one source of randomness."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable


class World:
    """Runs callbacks in the order of their times; equal times in the order of asking."""

    def __init__(self, seed: int, *, trace: Callable[[str], None] | None = None) -> None:
        self.now_s = 0.0
        self.random = random.Random(seed)
        self.happened = 0
        self._trace = trace
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def tracing(self) -> bool:
        return self._trace is not None

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._order), action))

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(time_s, self.now_s), next(self._order), action))

    def step(self) -> None:
        """Lets the next thing happen."""
        self.now_s, _, action = heapq.heappop(self._queue)
        self.happened += 1
        action()

    def run_until(self, time_s: float) -> None:
        while self._queue and self._queue[0][0] <= time_s:
            self.step()
        self.now_s = max(self.now_s, time_s)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random.random()

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def trace(self, who: str, what: object) -> None:
        if self._trace is not None:
            self._trace(f"{self.now_s:8.4f} {who:>6} {what}")


class Fifo:
    """Delivers in order, each item after a delay of its own but none before the one before it."""

    def __init__(self, world: World, low_s: float, high_s: float) -> None:
        self._world = world
        self._low_s, self._high_s = low_s, high_s
        self._last_s = 0.0

    def push(self, action: Callable[[], None]) -> None:
        world = self._world
        due_s = world.now_s + world.between(self._low_s, self._high_s)
        self._last_s = max(due_s, self._last_s)
        world.at(self._last_s, action)
