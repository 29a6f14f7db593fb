"""An engine without a network: links between fakes of one process are up as soon as both want them.

Only what the control client needs. Ops do not exist, so every fence finds nothing started.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class LinkUp:
    peer: bytes


@dataclass(frozen=True)
class LinkDown:
    peer: bytes
    reason: str
    message: str


@dataclass(frozen=True)
class Fenced:
    attempt: int
    epoch: int
    progress: dict[int, tuple[int, int, int]]


@dataclass(frozen=True)
class Installed:
    epoch: int
    member: bool


class Sea:
    """What the fakes of one test share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.engines: dict[bytes, FakeEngine] = {}

    def make(self, peer: bytes, secret: bytes) -> FakeEngine:
        return FakeEngine(self, peer, secret)


class FakeEngine:
    def __init__(self, sea: Sea, peer: bytes, secret: bytes) -> None:
        self.sea, self.peer, self.secret = sea, peer, secret
        self.event_fd, self._ring = os.pipe()
        self.port = 1 + len(sea.engines)
        self.wanted: set[bytes] = set()
        self.linked: set[bytes] = set()
        self.epoch = 0
        self.closed = False
        self._events: list[object] = []
        sea.engines[peer] = self

    def expect(self, peer: bytes) -> None:
        self._want(peer)

    def dial(self, peer: bytes, host: str, port: int) -> None:
        self._want(peer)

    def drop(self, peer: bytes) -> None:
        with self.sea.lock:
            self.wanted.discard(peer)
            self.linked.discard(peer)

    def fence(self, attempt: int, kind: str) -> None:
        self._emit(Fenced(attempt, self.epoch, {}))

    def install(self, epoch: int, members: list[bytes], starts: dict[int, int], kind: str) -> None:
        self.epoch = epoch
        self._emit(Installed(epoch, self.peer in members))

    def take_events(self) -> list[object]:
        with self.sea.lock:
            if self._events:
                os.read(self.event_fd, len(self._events))
            events, self._events = self._events, []
            return events

    def close(self) -> None:
        """Like a process that dies: all links go down at the others."""
        with self.sea.lock:
            if self.closed:
                return
            self.closed = True
            for other in self.linked:
                engine = self.sea.engines[other]
                engine.linked.discard(self.peer)
                engine._emit(LinkDown(self.peer, "reset", "connection reset by peer"))

    def _want(self, peer: bytes) -> None:
        with self.sea.lock:
            self.wanted.add(peer)
            other = self.sea.engines.get(peer)
            if other and self.peer in other.wanted and not other.closed:
                self.linked.add(peer)
                other.linked.add(self.peer)
                self._emit(LinkUp(peer))
                other._emit(LinkUp(self.peer))

    def _emit(self, event: object) -> None:
        with self.sea.lock:
            if not self.closed:
                self._events.append(event)
                os.write(self._ring, b"x")
