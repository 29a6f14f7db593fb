"""Methods whose exchange is a weighted mean of outer gradients, and whose outer step is Nesterov's.

Thread: the user's; `_exchange` is the exchange thread's where there is one.
"""

from __future__ import annotations

import logging
import math
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Protocol

from atoll import errors
from atoll.collectives.options import PLANS, codec_name, one_of
from atoll.methods import traffic
from atoll.methods.batch_size import squared_norm
from atoll.methods.exchange import Exchanged, Staged
from atoll.methods.method import OuterMethod
from atoll.methods.note import Note, unpacked
from atoll.methods.residual import Residual
from atoll.methods.stand_in import StandIn
from atoll.state.parity import NO_VOTE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from atoll.methods.batch_size import AdaptiveBatchSize
    from atoll.methods.layout import Split
    from atoll.methods.outer_state import Slot
    from atoll.session import Session

logger = logging.getLogger(__name__)


class Reduction(Protocol):
    """What a method needs to know of the exchange that gave a mean. notes, weights: by rank."""

    @property
    def epoch(self) -> int: ...
    @property
    def notes(self) -> Sequence[int]: ...
    @property
    def weights(self) -> Sequence[float]: ...
    @property
    def total_weight(self) -> float: ...


class MeanMethod(OuterMethod):
    """theta and momentum take one Nesterov step along the mean of the members' Delta."""

    _gathers = False
    """Its parts are not reduced on their way, but gathered as they were encoded."""

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int,
        outer_lr: float,
        outer_momentum: float,
        codec: str | None,
        plan: str,
        identity: dict[str, Any],
        kinds: Sequence[str] = ("theta", "momentum"),
        split: Split | None = None,
        background: bool = False,
        lead: bool = False,
        every: str | None = None,
        straggler_s: float | None = None,
        error_feedback: bool = False,
        weights: str = "samples",
        adaptive_batch: AdaptiveBatchSize | None = None,
        channel: int = 1,
        parity_every: int = 1,
    ) -> None:
        """outer_lr is eta, outer_momentum mu of the paper. Raises MisuseError and TensorError."""
        if not (math.isfinite(outer_lr) and outer_lr > 0):
            raise errors.MisuseError(f"outer_lr must be above 0, not {outer_lr}")
        if not 0 <= outer_momentum < 1:
            raise errors.MisuseError(f"outer_momentum must be in [0, 1), not {outer_momentum}")
        name = codec_name(codec)
        one_of("plan", plan, PLANS)
        if codec is not None:
            identity = {**identity, "codec": name}
        if adaptive_batch is not None:
            identity = {**identity, "adaptive_batch": list(astuple(adaptive_batch))}
        super().__init__(
            session,
            model,
            inner,
            sync_every=sync_every,
            identity={"outer_lr": outer_lr, "outer_momentum": outer_momentum, **identity},
            kinds=kinds,
            split=split,
            background=background,
            lead=lead,
            every=every,
            weights=weights,
            channel=channel,
            parity_every=parity_every,
        )
        self.outer_lr, self.outer_momentum = outer_lr, outer_momentum
        self.codec = codec
        # A ring would round at every hop, and the papers' outer gradients are rounded once.
        self.plan = "direct" if codec is not None and plan == "auto" else plan
        self._buffers: list[list[torch.Tensor]] = [[] for _ in self._layout.fragments]
        self._totals: dict[int, torch.Tensor] = {}
        if error_feedback and codec is None:
            raise errors.MisuseError("error_feedback is for a codec: without one nothing is lost")
        sizes = [fragment.numel for fragment in self._layout.fragments]
        self._residuals = [Residual(size, name) for size in sizes] if error_feedback else []
        self._adaptive = adaptive_batch
        if adaptive_batch is not None and background:
            raise errors.MisuseError("adaptive_batch is for rounds that wait for their exchange")
        if adaptive_batch is not None and codec is not None and not self._gathers:
            raise errors.MisuseError(
                "adaptive_batch needs exact norms: without a codec, or with ef21, econtrol or "
                "allocation"
            )
        self.stood_in = 0
        """Rounds that went on without this island's work, because it was late."""
        self._stand_in: StandIn | None = None
        if straggler_s is not None:
            if background:
                raise errors.MisuseError("straggler_s is for rounds that wait for their exchange")
            self._stand_in = StandIn(self._take_part, after_s=straggler_s)

    # --- stragglers -------------------------------------------------------------------------------

    def _begin_round(self, round_: int) -> None:
        super()._begin_round(round_)
        if self._stand_in is not None:
            self._stand_in.watch(self._launched)

    def finish(self) -> None:
        if self._stand_in is not None:
            self._stand_in.stop()
        super().finish()

    def _take_part(self, index: int) -> int | None:
        """Op `index` is overdue: takes part in it with weight 0, in the stand-in's thread. Returns
        the next op to watch; None: the user's thread has come.

        The island's work and its share go on: it stays at the outer parameters that it began from,
        its Delta is from there, and counts whole in the round in which it comes.
        """
        with self._lock:
            if self._launched != index:
                return None
            slot = self._state.now[0]
            if self._anchor is None:
                self._anchor = (slot, self._state.lend())
            staged = self._stage(index, 0, 0.0, 0)
            staged.late = True
            self._launched += 1
            self._flights.append(self._under(staged))
            self.stood_in += 1
            anchor = self._anchor
            self._absorb(behind=True)
            self._anchor = anchor
            self.running += 1
            self._inside[self.running] = self._slot() is not None
            self._plan_events()
            return self._launched

    def _stage(self, index: int, fragment: int, weight: float, trained: int) -> Staged:
        import torch

        free = self._buffers[fragment]
        numel = self._layout.fragments[fragment].numel
        pinned = not self._layout.on_host
        # Behind Delta there is room for its squared norm.
        buffer = free.pop() if free else torch.empty(numel + 1, device="cpu", pin_memory=pinned)
        delta = buffer[:numel]
        ready: Callable[[], None] = _nothing
        anchor: Slot | None = None
        if weight > 0:
            anchor = self._state.now[fragment] if self._anchor is None else self._anchor[0]
            lease = self._state.lend()  # nobody writes to the anchor before it is read
            subtract = self._layout.fragments[fragment].subtract_from(anchor.theta, delta)

            def ready(lease: object = lease) -> None:
                subtract()

        return Staged(
            index=index,
            fragment=fragment,
            weight=weight,
            trained=trained,
            delta=delta,
            ready=ready,
            anchor=anchor,
            buffer=buffer,
        )

    def _exchange(self, staged: Staged) -> Exchanged:
        sound, vote, refused = self._checked(staged)
        outcome, total, mean_square = self._reduced(staged, vote)
        exchanged = Exchanged(
            epoch=outcome.epoch,
            members=self._session.members_of(outcome.epoch),
            notes=[unpacked(bits) for bits in outcome.notes],
            weights=outcome.weights,
            slot=self._stepped(staged, total, outcome),
            refused=refused,
            sound=sound,
        )
        exchanged.batch_size = self._batch_size_after(staged, exchanged, total, mean_square)
        assert staged.buffer is not None
        self._buffers[staged.fragment].append(staged.buffer)
        return exchanged

    def _batch_size_after(
        self, staged: Staged, exchanged: Exchanged, mean: torch.Tensor, mean_square: float
    ) -> int:
        """All compute it of what the exchange gave to all. 0: as it is."""
        plan, adaptive = self._ledger.plan, self._adaptive
        if adaptive is None or plan is None or exchanged.slot is None:
            return 0
        if not adaptive.is_due(staged.index):
            return 0
        trained = [
            note.trained
            for note, weight in zip(exchanged.notes, exchanged.weights, strict=True)
            if weight > 0
        ]
        return adaptive.after(
            plan.size,
            mean_square=mean_square,
            squared_norm=squared_norm(self._direction(exchanged.slot, mean)),
            members=len(trained),
            samples=sum(trained) // len(trained),
        )

    def _direction(self, slot: Slot, mean: torch.Tensor) -> torch.Tensor:
        """What the outer step went along, into `slot`."""
        return mean

    def _checked(self, staged: Staged) -> tuple[bool, int, bool]:
        """(the outer state is sound, the vote on it, the contribution was refused): what is wrong
        does not leave this island."""
        import torch

        round_ = staged.index // self._fragments
        vote = self._parity.examine(self._state, staged.fragment, round_)
        sound = vote is not None
        staged.ready()
        refused = False
        if staged.weight > 0 and not bool(torch.isfinite(staged.delta).all()):
            logger.error("round %d: this island's parameters are not finite; left out", round_)
            refused = True
        elif staged.weight > 0 and not self._parity.may_be_anchor(self._state, staged, round_):
            staged.leave_out()
        if refused or not sound:
            staged.leave_out()
        return sound, NO_VOTE if vote is None else vote, refused

    def _reduced(self, staged: Staged, vote: int) -> tuple[Reduction, torch.Tensor, float]:
        """The weighted mean of the members' Delta, once it has committed; and with an adaptive
        batch that of their squared norms."""
        assert staged.buffer is not None
        total = self._totals.get(staged.fragment)
        if total is None:
            total = self._totals[staged.fragment] = staged.buffer.new_empty(staged.buffer.shape)
        numel = staged.delta.numel()
        message, residual = staged.delta, None
        if self._adaptive is not None:
            staged.buffer[numel] = squared_norm(staged.delta) if staged.weight > 0 else 0.0
            message = staged.buffer
        if self._residuals and staged.weight > 0:
            residual = self._residuals[staged.fragment]
            message = residual.fed(staged.delta, staged.weight)
        handle = self._session.all_reduce(
            message,
            total[: message.numel()],
            op="avg",
            weight=staged.weight,
            codec=self.codec,
            plan=self.plan,
            note=Note(vote=vote, trained=staged.trained, late=staged.late).packed(),
            channel=self.channel,
        )
        outcome = handle.wait()
        if residual is not None:
            residual.delivered()
        norms = float(total[numel]) if self._adaptive is not None else math.nan
        return outcome, total[:numel], norms

    def _stepped(self, staged: Staged, mean: torch.Tensor, outcome: Reduction) -> Slot | None:
        """The fragment's next slot, one step along the mean; None: nobody brought anything.

        All members compute the same: in the core's kernel, from the same bits.
        """
        import torch

        if outcome.total_weight <= 0:
            return None
        if not bool(torch.isfinite(mean).all()):
            logger.error("the mean of all members is not finite; no outer step is taken")
            return None
        return self._step_along(staged.fragment, mean)

    def _step_along(self, fragment: int, delta: torch.Tensor) -> Slot:
        """The outer step along `delta`, into a slot that is nobody's."""
        from atoll import _core

        now, then = self._state.now[fragment], self._state.next(fragment)
        _core.nesterov_step(
            then.theta.data_ptr(),
            then.momentum.data_ptr(),
            now.theta.data_ptr(),
            now.momentum.data_ptr(),
            delta.data_ptr(),
            delta.numel(),
            1.0,
            self.outer_lr,
            self.outer_momentum,
        )
        then.entries = self._state.described(fragment, then)
        return then

    def _into_model(self, fragment: int, staged: Staged, exchanged: Exchanged) -> None:
        self._layout.fragments[fragment].scatter(self._state.now[fragment].theta)

    def bytes_per_round(self, members: int) -> float:
        """Payload that this island sends in a round: 2 (N - 1) / N of every fragment as encoded."""
        from atoll import _core

        name = codec_name(self.codec)
        more = 0 if self._adaptive is None else 1
        numels = [each.numel + more for each in self._layout.fragments]
        encoded = sum(_core.encoded_bytes(name, numel) for numel in numels)
        return traffic.all_reduce_bytes(encoded, members)


def _nothing() -> None:
    """There is nothing to wait for."""
