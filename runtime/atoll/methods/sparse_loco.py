"""SparseLoCo: the largest outer gradients in two bits, gathered by all (arXiv 2508.15706)."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from atoll import errors
from atoll.methods import schedule, sparse, traffic
from atoll.methods.exchange import Exchanged, Staged
from atoll.methods.method import OuterMethod
from atoll.methods.note import Note, unpacked
from atoll.state.parity import NO_VOTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from atoll import _core
    from atoll.methods.outer_state import Slot
    from atoll.methods.schedule import Event
    from atoll.session import Session

logger = logging.getLogger(__name__)


class SparseLoCo(OuterMethod):
    """DiLoCo that sends `k` of 4096 numbers in two bits each, with error feedback.

    Every `sync_every` inner steps an island adds what it came to its residual, sends the largest
    numbers of that to everybody, and keeps the rest: e <- beta * e + Delta; hat = Q(TopK(e));
    e <- e - hat. All take theta <- theta - outer_lr * mean of hat; there is no outer momentum.

    Consistency class: identical. Bytes per round and island: N - 1 times its payload, 14 k / 4096
    bits a parameter and 16 bytes a tensor.

    Churn. Denominator: the members that brought a payload in the view in which the exchange
    committed; a lost one is missing from it, and the exchange is made again by those who are left
    with the payloads that they had. Anchor: the outer parameters last taken up. Residual: an
    island's own; it dies with it, is in no checkpoint, and a joiner begins with 0; what could not
    be sent (an exchange that failed) stays in it. A joiner brings nothing in the round in which it
    comes. Momentum: none.
    """

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int = 30,
        k: int = 64,
        outer_lr: float = 1.0,
        residual_decay: float = 0.95,
        even_norms: bool = False,
        every: str | None = None,
        channel: int = 1,
        parity_every: int = 1,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        """Joins the view and fetches the job's state into the model, or brings its own.

        k: kept of each chunk of 4096, useful from 32 to 128. outer_lr is alpha, residual_decay beta
        of the paper. even_norms: a payload louder than the median of all is scaled down to it.
        Raises what `DiLoCo` does, and MisuseError for a k at which a dense codec is cheaper.
        """
        if not (math.isfinite(outer_lr) and outer_lr > 0):
            raise errors.MisuseError(f"outer_lr must be above 0, not {outer_lr}")
        if not 0 <= residual_decay <= 1:
            raise errors.MisuseError(f"residual_decay must be in [0, 1], not {residual_decay}")
        super().__init__(
            session,
            model,
            inner,
            sync_every=sync_every,
            identity={
                "k": k,
                "outer_lr": outer_lr,
                "residual_decay": residual_decay,
                "even_norms": even_norms,
            },
            kinds=("theta",),
            weights="equal",
            every=every,
            channel=channel,
            parity_every=parity_every,
        )
        import torch

        self.outer_lr, self.residual_decay, self.even_norms = outer_lr, residual_decay, even_norms
        (part,) = self._layout.fragments
        self._form = sparse.SparseLayout(part.shapes, k=k)
        self.residual = torch.zeros(part.numel, device="cpu")
        """e of the paper: what was not sent yet, fp32, [numel]. This island's own."""
        self._delta = torch.empty(part.numel, device="cpu")
        self._warned = False
        self._attach(earlier)

    def _events_of(self, round_: int) -> tuple[Event, ...]:
        return schedule.blocking(round_, period=self.sync_every)

    def _stage(self, index: int, fragment: int, weight: float, trained: int) -> Staged:
        if weight > 0:
            self._layout.fragments[0].subtract_from(self._state.now[0].theta, self._delta)()
        return Staged(
            index=index,
            fragment=fragment,
            weight=weight,
            trained=max(1, trained) if weight > 0 else 0,
            delta=self._delta,
            ready=lambda: None,
        )

    def _exchange(self, staged: Staged) -> Exchanged:
        import torch

        vote = self._parity.examine(self._state, 0, staged.index)
        sound, refused = vote is not None, False
        payload = torch.zeros(self._form.payload_bytes, dtype=torch.uint8, device="cpu")
        left = self.residual
        if staged.weight > 0 and sound:
            whole = sparse.accumulated(self.residual, staged.delta, beta=self.residual_decay)
            refused = not bool(torch.isfinite(whole).all())
            if refused:
                logger.error(
                    "round %d: this island's parameters are not finite; left out", staged.index
                )
                left = torch.zeros_like(left)
            else:
                bytes_ = sparse.encode(whole, self._form)
                left = sparse.residual(whole, sparse.decode(bytes_, self._form))
                payload = torch.from_numpy(bytes_)
        if refused or not sound:
            staged.leave_out()
        note = Note(vote=NO_VOTE if vote is None else vote, trained=staged.trained)
        outcome, gathered = self._gathered(payload, note)
        self.residual = left
        notes = [unpacked(bits) for bits in outcome.notes]
        decoded, weights = self._decoded(gathered, notes)
        return Exchanged(
            epoch=outcome.epoch,
            members=self._session.members_of(outcome.epoch),
            notes=notes,
            weights=weights,
            slot=self._stepped(decoded),
            refused=refused,
            sound=sound,
        )

    def _gathered(self, payload: torch.Tensor, note: Note) -> tuple[_core.Outcome, torch.Tensor]:
        """All members' payloads, [members, payload bytes], by rank.

        Sizes are made for one view: when it changes the op fails on all members, which counts as
        one, and is called again. What has been absorbed by then is published, or a joiner that
        enters in between would wait for it.
        """
        while True:
            handle = self._session.all_gather(payload, note=note.packed(), channel=self.channel)
            try:
                return handle.wait(), handle.target
            except errors.ViewChanged:
                self._revision += 1
                self.publish()

    def _decoded(
        self, gathered: torch.Tensor, notes: list[Note]
    ) -> tuple[list[sparse.Decoded], list[float]]:
        """What the members brought, and by rank 1 for who did. All see the same bytes."""
        decoded: list[sparse.Decoded] = []
        weights = []
        for rank, note in enumerate(notes):
            weights.append(0.0)
            if note.trained:
                try:
                    decoded.append(sparse.decode(gathered[rank].numpy(), self._form))
                    weights[rank] = 1.0
                except errors.MisuseError as error:
                    logger.error("member %d's payload is left out by all: %s", rank, error)
        most = sparse.break_even_members(self._form.k)
        if len(notes) > most and not self._warned:
            self._warned = True
            logger.warning(
                "%d members: from %.0f on an int8 ring all-reduce (DiLoCo with codec='int8') sends "
                "fewer bytes than gathering payloads of k = %d",
                len(notes),
                most,
                self._form.k,
            )
        return decoded, weights

    def _stepped(self, decoded: list[sparse.Decoded]) -> Slot | None:
        """theta - outer_lr * (1/R) * sum of the payloads in member order, in the core's kernel."""
        from atoll import _core

        if not decoded:
            return None
        norms = [one.norm for one in decoded]
        factors = sparse.median_norm_factors(norms) if self.even_norms else None
        total = sparse.decoded_sum(decoded, self._form.numel, factors=factors)
        now, then = self._state.now[0], self._state.next(0)
        addresses = (then.theta.data_ptr(), now.theta.data_ptr(), total.data_ptr())
        _core.descend(*addresses, total.numel(), 1 / len(decoded), self.outer_lr)
        then.entries = self._state.described(0, then)
        return then

    def _into_model(self, fragment: int, staged: Staged, exchanged: Exchanged) -> None:
        self._layout.fragments[fragment].scatter(self._state.now[fragment].theta)

    def bytes_per_round(self, members: int) -> float:
        """Payload that this island sends in a round: its own, to every other member."""
        return traffic.sparseloco_bytes(self._form.payload_bytes, members)
