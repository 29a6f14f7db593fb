"""A job of one: the same engine, a view of one member, no coordinator.

`atoll.join()` gives this when no coordinator is named, so a script runs unchanged on a laptop. The
thread `atoll-events` stands for the control thread: it drains the engine's events.
"""

from __future__ import annotations

import os
import secrets
import select
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from atoll import errors
from atoll.control.membership import Membership
from atoll.membership.messages import Departure, PeerInfo, Report, View

if TYPE_CHECKING:
    from atoll import _core
    from atoll.membership.messages import PeerId

_PATIENCE_MS = 1000
"""Events that do not ring are taken so late."""


class AloneClient:
    """Stands where the control client stands; everything is true at once."""

    def __init__(
        self,
        *,
        island: str,
        shard: int = 0,
        engine_factory: Callable[[PeerId, bytes], _core.Engine],
        on_op_ended: Callable[[int], None],
    ) -> None:
        peer = secrets.token_bytes(16)
        self._on_op_ended = on_op_ended
        self.engine = engine_factory(peer, secrets.token_bytes(32))
        self._bell, self._ring = os.pipe()
        self._thread: threading.Thread | None = None
        info = PeerInfo(id=peer, island=island, order=0, endpoints=(), shard=shard)
        self._membership = Membership(
            peer=peer,
            order=0,
            view=View(epoch=1, members=(info,)),
            starts={},
            holders=frozenset([peer]),
            member=True,
            peers=(info,),
            donors=frozenset([peer]),
            linked=frozenset(),
            connected=False,
            left=False,
            ended=None,
        )

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="atoll-events", daemon=True)
        self._thread.start()
        self.engine.install(1, [self._membership.peer], {}, "abort")

    def ready(self) -> None:
        pass

    def holding(self, epoch: int | None = None) -> None:
        pass

    def measure_links(self) -> None:
        pass

    def links_carry(self, times: Mapping[bytes, float]) -> None:
        pass

    def report(self, report: Report) -> None:
        pass

    def drain(self, message: str) -> None:
        self._membership = replace(self._membership, draining=message)

    def leave(self, reason: Departure, timeout_s: float) -> bool:
        return True

    def membership(self) -> Membership:
        return self._membership

    def wait(self, predicate: Callable[[Membership], bool], timeout_s: float) -> Membership:
        if predicate(self._membership):
            return self._membership
        raise errors.DeadlineExceeded("nothing changes in a job of one")

    def close(self) -> None:
        if self._thread is not None:
            os.write(self._ring, b"x")
            self._thread.join()
            self._thread = None
        if self._ring >= 0:
            os.close(self._bell)
            os.close(self._ring)
            self._bell = self._ring = -1

    def _run(self) -> None:
        from atoll import _core

        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(self.engine.event_fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(_PATIENCE_MS)}
            for event in self.engine.take_events():
                if isinstance(event, _core.OpEnded):
                    self._on_op_ended(event.op)
            if self._bell in ready:
                return
