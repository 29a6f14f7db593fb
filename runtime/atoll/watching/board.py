"""What a coordinator shows, handed from its loop to whoever watches over HTTP.

Threads: `observe`, `tell` and `links` are called by the coordinator's loop and only keep what they
are given (statuses are immutable); the threads that serve watchers make JSON of it, once for all
of them.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from atoll.membership.events import JobEvent, JobStatus
from atoll.membership.messages import LinkFigures, PeerId
from atoll.watching import discovery, snapshot
from atoll.watching.history import History

PACE_S = 1.0
"""A watcher is told no more often."""
KEEPALIVE_S = 5.0
"""Nor less often: a line that is silent for longer is cut somewhere."""
KEPT_EVENTS = 400

Figures = Mapping[tuple[PeerId, PeerId], LinkFigures]


@dataclass(slots=True)
class _Cursor:
    """What one watcher has been told."""

    status: JobStatus | None = None
    standby: str | None = None
    round: int = -1
    event: int = -1
    links: tuple[int, tuple[str, ...]] | None = None


class Board:
    """Any number of `stream`s may run; `close` ends them."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._condition = threading.Condition()
        self._closed = threading.Event()
        self._status: JobStatus | None = None
        self._standby = ""
        self._at = (0.0, 0.0)
        self._history = History()
        self._events: deque[tuple[JobEvent, float]] = deque(maxlen=KEPT_EVENTS)
        self._figures: Figures = {}
        self._measured = 0
        self._cache: dict[str, tuple[object, bytes]] = {}

    # --- the coordinator's loop -------------------------------------------------------------------

    def observe(
        self, status: JobStatus | None, *, leader: str, uptime_s: float, unix_s: float
    ) -> None:
        """The job now; None: this coordinator stands by for `leader`."""
        if status is not None:
            self._history.observe(status, unix_s)
        with self._condition:
            self._status, self._at = status, (uptime_s, unix_s)
            self._standby = "" if status is not None else leader or "nobody"
            self._condition.notify_all()

    def tell(self, event: JobEvent, unix_s: float) -> None:
        """Something happened."""
        if event.kind != "round":  # those are points of the curves
            with self._condition:
                self._events.append((event, unix_s))

    def links(self, number: int, figures: Figures) -> None:
        """What was measured. `number` grows with every change; figures that are not news are not
        looked at."""
        if number != self._measured:
            with self._condition:
                self._measured, self._figures = number, dict(figures)

    def begin_term(self) -> None:
        """The events of a new machine have numbers of their own."""
        with self._condition:
            self._events.clear()

    # --- any thread -------------------------------------------------------------------------------

    def targets(self, *, secure: bool) -> bytes:
        """The answer to Prometheus' service discovery."""
        found = discovery.targets(self._status, secure=secure)
        return json.dumps(found, indent=1).encode()

    def stream(self) -> Iterator[bytes]:
        """Server-sent events, one after the other as they are due, until `close`. The first ones
        tell everything; whoever reconnects begins anew."""
        cursor = _Cursor()
        while not self._closed.is_set():
            frames = self._news(cursor)
            yield b"".join(frames) if frames else _frame("still", {})
            self._closed.wait(PACE_S)
            with self._condition:
                self._condition.wait_for(
                    lambda: self._closed.is_set() or self._status is not cursor.status,
                    KEEPALIVE_S - PACE_S,
                )

    def close(self) -> None:
        self._closed.set()
        with self._condition:
            self._condition.notify_all()

    # --- within -----------------------------------------------------------------------------------

    def _news(self, cursor: _Cursor) -> list[bytes]:
        """What the cursor has not been told; it has been afterwards."""
        with self._condition:
            status, standby, at = self._status, self._standby, self._at
            points = self._history.points
            told = [(e, s) for e, s in self._events if e.number > cursor.event]
            figures, measured = self._figures, self._measured
        if standby and standby != cursor.standby:
            cursor.standby, cursor.status = standby, None
            return [_frame("standby", {"job": self._job, "leader": standby})]
        if status is None or status is cursor.status:
            return []
        began_anew = cursor.round < 0 or (bool(points) and points[-1].round < cursor.round)
        fresh = [p for p in points if began_anew or p.round > cursor.round]
        frames = []
        if fresh or began_anew:
            told_points = [snapshot.point(point) for point in fresh]
            frames.append(_frame("rounds", {"anew": began_anew, "points": told_points}))
        if told or cursor.event < 0:
            events = [snapshot.event(event, unix_s) for event, unix_s in told]
            frames.append(_frame("events", {"anew": cursor.event < 0, "events": events}))
        made = self._shared(
            "state",
            at,
            lambda: snapshot.state(status, uptime_s=at[0], unix_s=at[1]),
        )
        frames.append(made)
        islands = tuple(peer.info.island for peer in status.peers)
        if cursor.links != (measured, islands):
            key = (measured, islands)
            frames.append(self._shared("links", key, lambda: snapshot.links(status, figures)))
        cursor.status, cursor.standby, cursor.links = status, standby, (measured, islands)
        cursor.round = points[-1].round if points else 0
        cursor.event = told[-1][0].number if told else max(0, cursor.event)
        return frames

    def _shared(self, kind: str, key: object, make: Callable[[], Mapping[str, object]]) -> bytes:
        """The frame, made once for all watchers."""
        known = self._cache.get(kind)
        if known is None or known[0] != key:
            known = (key, _frame(kind, make()))
            self._cache[kind] = known
        return known[1]


def _frame(kind: str, value: Mapping[str, object]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n".encode()
