"""A job's rounds so far, for curves: one value for each, thinned out when there are many.

Thread: the coordinator's, which adds; `points` may be read by any.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from atoll.membership.events import JobStatus
from atoll.membership.messages import PeerId, Report

MOST_POINTS = 1200
"""More than a screen has columns for. At this many, every second one of the older half goes."""

WINDOW_S = 2.0
"""Shorter rounds come in groups, and would say little of how fast a job is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A round that is over. Unix time; NaN: unknown."""

    unix_s: float
    round: int
    loss: float
    tokens_per_s: float
    islands: int


class History:
    """`observe` whenever there may be something new."""

    def __init__(self) -> None:
        self.points: tuple[Point, ...] = ()
        self._tokens: dict[PeerId, int] = {}
        self._earned = 0
        self._marks: deque[tuple[float, int]] = deque()

    def observe(self, status: JobStatus, unix_s: float) -> Point | None:
        """Takes note of a status; returns the round that has come to its end, if one has.

        Tokens a second are those that members reported since the last point that is WINDOW_S or
        more ago.
        """
        known = {}
        for peer in status.peers:
            if peer.report is not None:
                tokens = peer.report.tokens
                self._earned += max(0, tokens - self._tokens.get(peer.info.id, tokens))
                known[peer.info.id] = tokens
        self._tokens = known
        last = self.points[-1].round if self.points else 0
        if status.round == last or not status.round:
            if not self._marks:
                self._marks.append((unix_s, self._earned))
            return None
        while len(self._marks) > 1 and self._marks[1][0] <= unix_s - WINDOW_S:
            self._marks.popleft()
        rate = math.nan
        if self._marks and unix_s > self._marks[0][0]:
            rate = (self._earned - self._marks[0][1]) / (unix_s - self._marks[0][0])
        self._marks.append((unix_s, self._earned))
        point = Point(
            unix_s=unix_s,
            round=status.round,
            loss=status.loss,
            tokens_per_s=rate,
            islands=len(status.members) // max(1, status.shards),
        )
        # A job that began again from a checkpoint counts from there.
        kept = self.points if status.round > last else before(self.points, status.round)
        self.points = thinned((*kept, point))
        return point


def before(points: tuple[Point, ...], round: int) -> tuple[Point, ...]:
    """Those of earlier rounds."""
    return tuple(point for point in points if point.round < round)


def thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Unchanged while there are few; then every second one of the older half goes."""
    if len(points) <= MOST_POINTS:
        return points
    half = len(points) // 2
    return points[:half:2] + points[half:]


def parts_of_round(report: Report) -> tuple[float, float]:
    """Seconds of an island's last round: computing, and at its end (the exchange and waiting for
    it). Both 0 when there was none."""
    waiting = min(report.sync_s, report.round_s)
    return report.round_s - waiting, waiting
