"""A group whose members stay the same: one engine and one view, until the first member is lost.

It has no coordinator. A member that is lost ends it for those who notice: every op in flight fails
at once, and so does every later one, with the reason. A member that leaves in good order has done
its part of what is over for it: it ends the collectives, and what is between it and others.

Threads: every method may be called from any thread. The thread `atoll-group` drains the engine's
events, wakes those who await ops, and runs their callbacks.
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from atoll import errors
from atoll.client import make_engine, trusted_identity
from atoll.collectives.handle import Handle
from atoll.collectives.in_flight import Collectives
from atoll.config import SessionSettings, parse_hosts
from atoll.distributed.meeting import Meeting, Record, new_identity

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

    from atoll import _core

logger = logging.getLogger(__name__)

EPOCH = 1
"""Of the only view with all members."""
_OVER = (errors.ViewChanged, errors.SessionClosed, errors.PeerLost, errors.OpAborted)
_LAST_WORDS_S = 1.0
"""A member that left has told how its ops ended; the news may still be on its way. So may the news
of a loss, to others: who has seen it first is not to be taken for the one who is lost."""
_PATIENCE_MS = 1000
"""Events that do not ring are taken so late."""


class Listener(Protocol):
    """Called by the group's thread."""

    def offered(self, rank: int, number: int) -> None: ...
    def tick(self, now_s: float) -> None: ...


class FixedGroup:
    """One member's part in it, from `form` to `close`."""

    def __init__(
        self, engine: _core.Engine, rank: int, records: list[Record], *, op_timeout_s: float
    ) -> None:
        self.engine = engine
        self.rank = rank
        self.peers = tuple(record.peer for record in records)
        self._addresses = [record.address for record in records]
        self.ops = Collectives(engine, op_timeout_s=op_timeout_s, explain=self._explain)
        self._changed = threading.Condition()
        self._linked: set[bytes] = {self.peers[rank]}
        self._fault: errors.AtollError | None = None
        self._closed = False
        self._listener: Listener | None = None
        self._left: dict[int, errors.GroupBroken] = {}
        self._left_s = math.inf
        self._broken_s = math.inf
        self._running: deque[Handle[Any]] = deque()
        self._bell, self._ring = os.pipe()
        self._thread = threading.Thread(target=self._run, name="atoll-group", daemon=True)
        self._thread.start()

    @classmethod
    def form(
        cls,
        store: Store,
        *,
        rank: int,
        size: int,
        timeout_s: float,
        settings: SessionSettings,
    ) -> FixedGroup:
        """Meets the other members through the store and links up with all of them.

        Raises DeadlineExceeded and CannotJoin; both say who is missing.
        """
        if not 0 <= rank < size:
            raise errors.MisuseError(f"rank {rank} is none of a group of {size}")
        identity = trusted_identity(settings)
        meeting = Meeting(store, rank=rank, size=size, timeout_s=timeout_s)
        peer, secret = new_identity()
        secret = meeting.secret_of_first(secret)
        engine = make_engine(settings, identity, peer=peer, secret=secret)
        try:
            hosts = parse_hosts(settings.advertise_host)
            endpoints = tuple((host, engine.port) for host in hosts)
            own = Record(peer=peer, size=size, endpoints=endpoints)
            records = meeting.exchange(own)
            group = cls(engine, rank, records, op_timeout_s=settings.op_timeout_s)
        except BaseException:
            engine.close()
            raise
        try:
            group._link(records, meeting.left_s)
        except BaseException:
            group.close("it could not link with all members")
            raise
        return group

    @property
    def size(self) -> int:
        """Members."""
        return len(self.peers)

    @property
    def fault(self) -> errors.AtollError | None:
        """Why there are no more collectives; None while there are."""
        return self._fault or next(iter(self._left.values()), None)

    @property
    def alone(self) -> errors.AtollError | None:
        """Why nobody is there to send anything; None while somebody is."""
        return self.fault if self._fault or len(self._left) == self.size - 1 > 0 else None

    def check(self) -> None:
        """Raises why there are no more collectives, if so."""
        fault = self.fault
        if fault is not None:
            raise fault

    def check_with(self, rank: int | None) -> None:
        """Raises why nothing can come from this member, or go there. None: from anybody."""
        fault = self.alone if rank is None else self._fault or self._left.get(rank)
        if fault is not None:
            raise fault

    def started(self, handle: Handle[Any]) -> None:
        """A collective is under way."""
        running = self._running
        running.append(handle)
        while running[0].done() and len(running) > 1:
            running.popleft()

    def name(self, rank: int) -> str:
        """A member, for people."""
        return f"rank {rank} ({self._addresses[rank]})"

    def listen(self, channel: int, listener: Listener) -> None:
        """Tells `listener` of sends on this channel that come before their receipts. One of a
        group."""
        self._listener = listener
        self.engine.listen(channel)

    def close(self, why: str, *, fault: errors.AtollError | None = None) -> None:
        """Ends everything; ops in flight fail. Idempotent.

        The other members hear it, and their ops fail as well.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            if self._fault is None:
                self._fault = fault or errors.SessionClosed(f"this group is closed: {why}")
            self._changed.notify_all()
        self.engine.close()
        self.ops.close()
        os.write(self._ring, b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # --- within -----------------------------------------------------------------------------------

    def _link(self, records: list[Record], timeout_s: float) -> None:
        end_s = time.monotonic() + timeout_s
        self.engine.install(EPOCH, list(self.peers), {}, "abort")
        for rank, record in enumerate(records):
            if rank > self.rank:
                self.engine.expect(record.peer, record.endpoints)
            elif rank < self.rank:
                self.engine.dial(record.peer, record.endpoints)
        with self._changed:
            while len(self._linked) < self.size:
                if self._fault is not None:
                    raise self._fault
                if not self._changed.wait(max(0.0, end_s - time.monotonic())):
                    missing = [
                        self.name(rank)
                        for rank, peer in enumerate(self.peers)
                        if peer not in self._linked
                    ]
                    raise errors.DeadlineExceeded(
                        f"rank {self.rank} has no link with {', '.join(missing)} after "
                        f"{timeout_s:.3g} s"
                    )

    def _explain(self, fault: errors.AtollError) -> errors.AtollError:
        """An op that ended because the group did says why the group did."""
        known = self.fault
        return known if known is not None and isinstance(fault, _OVER) else fault

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(self.engine.event_fd, select.POLLIN)
        while True:
            pending = min(self._left_s, self._broken_s) < math.inf
            patience_ms = _PATIENCE_MS // 10 if pending else _PATIENCE_MS
            ready = {fd for fd, _ in poll.poll(patience_ms)}
            for event in self.engine.take_events():
                self._take(event)
            self._tick(time.monotonic())
            if self._bell in ready:
                break
        if self._listener is not None:
            self._listener.tick(time.monotonic())
        os.close(self._bell)
        os.close(self._ring)

    def _take(self, event: _core.Event) -> None:
        from atoll import _core

        match event:
            case _core.OpEnded():
                self.ops.ended(event.op)
            case _core.LinkUp():
                with self._changed:
                    self._linked.add(event.peer)
                    self._changed.notify_all()
            case _core.LinkDown():
                if event.reason != "dropped":
                    self._lost(event.peer, event.reason, event.message)
            case _core.Offered():
                if self._listener is not None:
                    self._listener.offered(self.peers.index(event.peer), event.tag)
            case _core.Fenced():
                self._fenced(event.progress)
            case _core.Refused() | _core.NotLocal():
                logger.warning("%s", event.message)
            case _:
                pass

    def _lost(self, peer: bytes, reason: str, message: str) -> None:
        """The first loss ends the group. Its links stay for a moment, so that the others learn who
        was lost, and not who told them."""
        rank = self.peers.index(peer)
        if reason == "bye":
            self._departed(peer)
            return
        with self._changed:
            self._linked.discard(peer)
            if self._fault is None:
                _, _, seen = message.rpartition(f"{peer.hex()[:8]}: ")
                self._fault = errors.GroupBroken(rank, self._addresses[rank], reason, seen)
                logger.warning("%s", self._fault)
            self._changed.notify_all()
        self._break(time.monotonic())

    def _departed(self, peer: bytes) -> None:
        """A collective goes well only if the one who left has done its part and said so."""
        rank = self.peers.index(peer)
        with self._changed:
            address = self._addresses[rank]
            self._left[rank] = errors.GroupBroken(rank, address, "bye", "it left the group")
            self._left_s = min(self._left_s, time.monotonic())
            if len(self._linked) < self.size and self._fault is None:
                self._fault = self._left[rank]  # while the group was formed
            self._linked.discard(peer)
            self._changed.notify_all()
        for handle in list(self._running):
            handle.abort()

    def _tick(self, now_s: float) -> None:
        if now_s > self._left_s + _LAST_WORDS_S:
            self._left_s = math.inf
            if not all(handle.done() for handle in list(self._running)):
                self._fault = self.fault
                self._break(now_s)
        if now_s > self._broken_s + _LAST_WORDS_S:
            self._broken_s = math.inf
            for peer in self.peers:  # who has not noticed would wait for this member in vain
                self.engine.drop(peer)
        if self._listener is not None:
            self._listener.tick(now_s)

    def _break(self, now_s: float) -> None:
        self._broken_s = now_s
        self.engine.fence(1, "abort")  # answered with Fenced

    def _fenced(self, progress: dict[int, tuple[int, int, int]]) -> None:
        """Nothing moves any more. What this member holds the result of has gone well, whoever may
        not have said so; everything else was for a view that is over, and fails."""
        starts = {channel: done for channel, (_, done, _) in progress.items()}
        self.engine.install(EPOCH + 1, [self.peers[self.rank]], starts, "abort")
