"""A job of one: the same engine, a view of one member, no coordinator.

`atoll.join()` gives this when no coordinator is named, so a script runs unchanged on a laptop.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from atoll import errors
from atoll.control.membership import Membership
from atoll.membership.messages import Departure, PeerInfo, Report, View

if TYPE_CHECKING:
    from atoll import _core
    from atoll.membership.messages import PeerId


class AloneClient:
    """Stands where the control client stands; everything is true at once."""

    def __init__(
        self,
        *,
        island: str,
        engine_factory: Callable[[PeerId, bytes], _core.Engine],
        on_op_ended: Callable[[int], None],
    ) -> None:
        peer = secrets.token_bytes(16)
        self._on_op_ended = on_op_ended
        self.engine = engine_factory(peer, secrets.token_bytes(32))
        info = PeerInfo(id=peer, island=island, order=0, endpoints=())
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
        self.engine.install(1, [self._membership.peer], {}, "abort")

    def ready(self) -> None:
        pass

    def holding(self, epoch: int | None = None) -> None:
        pass

    def report(self, report: Report) -> None:
        self._drain()

    def leave(self, reason: Departure, timeout_s: float) -> bool:
        return True

    def membership(self) -> Membership:
        return self._membership

    def wait(self, predicate: Callable[[Membership], bool], timeout_s: float) -> Membership:
        if predicate(self._membership):
            return self._membership
        raise errors.DeadlineExceeded("nothing changes in a job of one")

    def close(self) -> None:
        self._drain()

    def _drain(self) -> None:
        from atoll import _core

        for event in self.engine.take_events():
            if isinstance(event, _core.OpEnded):
                self._on_op_ended(event.op)
