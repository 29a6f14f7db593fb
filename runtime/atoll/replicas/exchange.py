"""The ops of a step: sent off in order, absorbed in order, again where the view has changed.

`position` has the rule. Thread: the user's, and autograd's while the user's waits for it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from atoll import errors
from atoll.replicas import position as positions
from atoll.replicas.position import Position

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle
    from atoll.replicas.combining import Combining
    from atoll.session import Session

_LOOK_S = 0.02
"""Who waits for an op looks this often whether somebody needs the state before that op commits."""


def _nothing() -> None:
    """Nobody is to be served."""


class Exchange:
    """`revision`: ops of the channel absorbed. `epoch`: of the view in which the last step was
    completed. `serve` is called when the state may be wanted."""

    def __init__(self, session: Session, buckets: Sequence[Combining], *, channel: int) -> None:
        self.session = session
        self.channel = channel
        self.revision = self.epoch = 0
        self.line = ""  # of checkpoints of replicas of several processes
        self.position = Position(buckets=len(buckets))
        self.serve: Callable[[], None] = _nothing
        self._buckets = buckets
        self._flights: deque[Handle[torch.Tensor]] = deque()
        self._results: dict[int, Handle[torch.Tensor]] = {}

    @property
    def slot(self) -> int | None:
        """This replica's place in the running step's work; None: it has none."""
        peer, assigned = self.session.peer_id, self.position.assigned
        return assigned.index(peer) if peer in assigned else None

    def stand_at(self, revision: int, position: Position) -> None:
        """The state is this one from here on."""
        self.revision, self.position = revision, position
        self._begin()

    def launch(self, weight: float) -> None:
        """Sends off the next bucket of the running pass."""
        bucket = self.position.todo[len(self._flights)]
        how = self._buckets[bucket]
        self._flights.append(how.exchange(self.session, self.channel, weight))

    def complete(self, weight: float) -> list[torch.Tensor] | None:
        """Ends the running step: the buckets' totals, or None when a part of it is missing, and it
        must be computed again. weight: of what this replica has put in.

        Raises what `Handle.wait` does; nothing has changed then, and the same may be called again.
        """
        while True:
            epoch = self._pass(weight)
            self.position = positions.next_pass(self.position, epoch)
            if not self.position.todo:
                return self._completed(epoch)

    # --- within -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._results.clear()
        for bucket in self._buckets:
            bucket.begin(self.slot, len(self.position.assigned))

    def _pass(self, weight: float) -> int:
        """Absorbs every op of the pass; returns the last one's epoch."""
        while len(self._flights) < len(self.position.todo):
            self.launch(weight)
        epoch, fault = 0, None
        while self._flights:
            handle = self._flights[0]
            try:
                epoch = self._waited(handle)
            except errors.ViewChanged:
                self._absorbed(None, 0)
            except (errors.MismatchError, errors.OpAborted, errors.DeadlineExceeded) as error:
                fault = error
                self._absorbed(None, 0)
            else:
                self._absorbed(handle, epoch)
        if fault is not None:
            self.position = positions.next_pass(self.position, epoch)
            raise fault
        return epoch

    def _absorbed(self, handle: Handle[torch.Tensor] | None, epoch: int) -> None:
        bucket = self.position.todo[0]
        if handle is not None:
            self._results[bucket] = handle
        self.position = positions.absorbed(self.position, epoch=epoch, ok=handle is not None)
        self.revision += 1
        self._flights.popleft()

    def _waited(self, handle: Handle[torch.Tensor]) -> int:
        while True:
            with contextlib.suppress(errors.DeadlineExceeded):
                return handle.wait(_LOOK_S).epoch
            if handle.done():  # it failed, perhaps only just now: that says with what
                return handle.wait().epoch
            self.serve()

    def _completed(self, epoch: int) -> list[torch.Tensor] | None:
        members = self.session.members_of(epoch)
        before = self.position
        places = {peer: rank for rank, peer in enumerate(members)}
        ranks = [places.get(peer) for peer in before.assigned]
        totals: list[torch.Tensor] = []
        for number, how in enumerate(self._buckets):
            handle = self._results[number]
            assert handle.outcome is not None  # it was waited for
            total = how.taken(handle.target, handle.outcome.weights, ranks)
            if total is not None:
                totals.append(total)
        whole = len(totals) == before.buckets
        after = positions.begun(before.buckets, members, step=before.step + whole)
        self.position, self.epoch = after, epoch
        self._begin()
        return totals if whole else None
