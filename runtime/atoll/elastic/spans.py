"""How a worker's time goes: steps, and the parts of a recovery. No I/O; the clock is handed in.

A recovery begins when this worker hears of a loss (how long that took is not seen from here), and
ends with the step that was interrupted.

    view     until all survivors are in the new view, their links with one another untouched
    agree    until all survivors have told each other what they hold
    state    until what had to move has come; nothing after one loss
    verify   until the gate has compared all copies
    redo     until the step is done: parameters, and passes that died with somebody
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from atoll.elastic.layout import Layout
from atoll.elastic.requests import Gather, Request

STEPS = 8
"""Undisturbed ones, whose median is a layout's."""

NAMES = ("view", "agree", "state", "verify", "redo")

_NEXT = {("agree", "report"): "state", ("verify", "evidence"): "redo"}
"""After these gatherings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """kind: layout, recovery or throughput."""

    kind: str
    text: str


class Spans:
    """Told of a worker's interruptions, requests and steps. Thread: the user's."""

    def __init__(self, *, tokens: int, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._part: str | None = None
        self._gathered: str | None = None
        self._since_s = 0.0
        self.seconds: dict[str, float] = {}
        """Of the last recovery, by name."""
        self._ends: deque[float] = deque(maxlen=STEPS + 1)
        self._layout: Layout | None = None
        self._before: float | None = None
        self.step_s: float | None = None
        """Median of the last undisturbed steps of this layout; None: too few as yet."""

    def interrupted(self, view_s: float) -> None:
        """A new view, for which nothing could be sent for so long. Those before the step's end are
        one recovery."""
        if self._part is None:
            self.seconds = dict.fromkeys(NAMES, 0.0)
        else:
            self._close()
        self.seconds["view"] += view_s
        self._enter("agree")

    def request(self, request: Request) -> None:
        """What the worker asks for next: the one before is answered."""
        if self._part is None:
            return
        if self._gathered is not None:
            self._close()
            self._enter(_NEXT.get((self._part, self._gathered), self._part))
            self._gathered = None
        if isinstance(request, Gather):
            if request.what == "evidence" and self._part == "state":
                self._close()
                self._enter("verify")
            self._gathered = request.what

    def step_over(self, layout: Layout) -> list[Notice]:
        """After each step; returns what people want to know."""
        now_s = self._clock()
        found = []
        if self._layout is None or layout.epoch != self._layout.epoch:
            found.append(Notice(kind="layout", text=described(layout)))
            self._before = self.step_s or self._before
            self.step_s = None
            self._ends.clear()
        self._layout = layout
        if self._part is not None:
            self._close()
            self._part = self._gathered = None
            self._ends.clear()
            found.append(Notice(kind="recovery", text=self._recovered()))
        self._ends.append(now_s)
        if len(self._ends) == STEPS + 1:
            is_new = self.step_s is None
            self.step_s = statistics.median(b - a for a, b in pairwise(self._ends))
            if is_new:
                found.append(Notice(kind="throughput", text=self._pace(layout, self.step_s)))
        return found

    def _enter(self, part: str) -> None:
        self._part, self._since_s, self._gathered = part, self._clock(), None

    def _close(self) -> None:
        assert self._part is not None
        self.seconds[self._part] += self._clock() - self._since_s

    def _recovered(self) -> str:
        parts = ", ".join(f"{name} {self.seconds[name] * 1e3:.0f}" for name in NAMES)
        return f"{sum(self.seconds.values()) * 1e3:.0f} ms ({parts})"

    def _pace(self, layout: Layout, step_s: float) -> str:
        workers = len(layout.workers)
        now = f"{self._tokens / step_s:.0f} tokens/s with {workers} workers"
        if self._before is None:
            return now
        return f"{now}, {self._tokens / self._before:.0f} before"


def described(layout: Layout) -> str:
    """Stages, their layers and workers, and the micro-batches of each worker, in one line. Stages
    of one group of workers are one."""
    groups = layout.groups
    stages = []
    for number, group in enumerate(groups):
        held = layout.stages[number :: len(groups)]
        layers = " and ".join(f"{stage.first}-{stage.last - 1}" for stage in held)
        shares = "+".join(str(len(own)) for own in held[0].micro_batches)
        stages.append(f"layers {layers} on {len(group)} ({shares} micro-batches)")
    return f"{len(stages)} stages: {', '.join(stages)}"
