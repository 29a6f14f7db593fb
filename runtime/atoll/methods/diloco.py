"""DiLoCo: many inner steps on each island, then one outer step together (arXiv 2311.08105)."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from atoll import errors
from atoll.data import ledger as ledgers
from atoll.methods.layout import Layout
from atoll.methods.outer_state import OuterState, Slot, state_digest
from atoll.state.manifest import Manifest

if TYPE_CHECKING:
    import torch

    from atoll.membership.messages import PeerId
    from atoll.session import Session

logger = logging.getLogger(__name__)


class DiLoCo:
    """Wraps a model and its inner optimizer; call `step()` after each inner step.

    Every `sync_every` inner steps the islands average how far they came (weighted by the samples
    they trained on) and take one Nesterov step of the outer parameters along it; the model then
    holds the outer parameters, bit-identical on all islands.

    Consistency class: identical. Bytes per round and island: 4 bytes a parameter times what the
    plan sends, 2 (N - 1) / N for both plans.

    Churn: a member lost during a round is missing from the mean, which is divided by what was
    received; its samples return to the pool. A joiner receives outer parameters, momentum, round
    and data position, takes part in the running round with weight zero, and contributes from its
    first full round on. The inner optimizer's state stays with its island, neither reset nor
    averaged. There is no residual.
    """

    consistency = "identical"

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int = 100,
        outer_lr: float = 0.7,
        outer_momentum: float = 0.9,
        plan: str = "auto",
        channel: int = 1,
    ) -> None:
        """Joins the view and fetches the job's state into the model, or brings its own.

        outer_lr is eta, outer_momentum mu of the paper. Raises MisuseError for settings that make
        no sense, TensorError for parameters that are not fp32, MismatchError when the job trains
        something else, CannotJoin when the view is not reached in time.
        """
        import torch

        if sync_every < 1:
            raise errors.MisuseError(f"sync_every must be at least 1, not {sync_every}")
        if not (math.isfinite(outer_lr) and outer_lr > 0):
            raise errors.MisuseError(f"outer_lr must be above 0, not {outer_lr}")
        if not 0 <= outer_momentum < 1:
            raise errors.MisuseError(f"outer_momentum must be in [0, 1), not {outer_momentum}")
        self.channel = channel
        self.sync_every = sync_every
        self.inner = inner
        self.outer_lr, self.outer_momentum, self.plan = outer_lr, outer_momentum, plan
        self.round = 0
        self.just_synced = False
        self._session = session
        self._layout = Layout(model)
        self._state = OuterState(
            self._layout.numel,
            self._layout.names,
            {
                "method": "DiLoCo",
                "sync_every": sync_every,
                "outer_lr": outer_lr,
                "outer_momentum": outer_momentum,
            },
        )
        self._layout.gather(self._state.now.theta)
        self._revision = 0
        self._ledger = ledgers.Ledger()
        self._receiving: Slot | None = None
        self._local = torch.empty(self._layout.numel)
        self._loss: torch.Tensor | float = 0.0
        self._begin_round()
        session.attach(self)

    # --- the user's loop --------------------------------------------------------------------------

    def step(self, loss: torch.Tensor | float | None = None) -> None:
        """Counts one inner step; at the end of the round, takes the outer step with the others.

        loss: of this step, a scalar; the round's mean is reported. Blocks only at the end of a
        round. Raises Expelled, SessionClosed, MismatchError or DeadlineExceeded; after an error
        the outer state is what it was before the round.
        """
        self.just_synced = False
        self._steps += 1
        if loss is not None:
            self._losses += 1
            # Still a tensor: reading it now would wait for an accelerator at every step.
            self._loss = self._loss + (loss.detach() if hasattr(loss, "detach") else loss)
        outside = self._ledger.slot_of(self._session.peer_id) is None
        if outside or self._steps >= self._due:
            self.end_round()

    def outer_parameters(self) -> torch.Tensor:
        """The shared parameters, flat fp32, [numel]. Do not write to it."""
        return self._state.now.theta

    def state_dict(self) -> dict[str, Any]:
        """Outer parameters, momentum, round and data position."""
        return {
            "theta": self._state.now.theta.clone(),
            "momentum": self._state.now.momentum.clone(),
            "round": self.round,
            "ledger": ledgers.to_json(self._ledger),
        }

    # --- the data's side (atoll.data.batches) -----------------------------------------------------

    @property
    def ledger(self) -> ledgers.Ledger:
        return self._ledger

    def open_ledger(self, plan: ledgers.Plan) -> None:
        """Gives the members of the running round their samples of a data set."""
        self._ledger = ledgers.opened(self._ledger, plan)
        self.publish()

    def begin_share(self, batches: int) -> None:
        """The round ends after so many of this island's batches."""
        self._due = max(1, batches)

    def drew(self, samples: int, tokens: int) -> None:
        """The user got a batch."""
        self._samples += samples
        self._session.progress.tokens += tokens

    def end_round(self) -> None:
        """Exchanges, takes the outer step and begins the next round.

        Called by `step` and by the data when this island has nothing (more) to train on.
        """
        began = time.monotonic()
        self._session.report(phase="exchanging")
        contribution, weight = self._contribution()
        total = contribution.new_empty(contribution.shape)
        try:
            handle = self._session.all_reduce(
                contribution, total, channel=self.channel, plan=self.plan
            )
            outcome = handle.wait()
        except (errors.MismatchError, errors.OpAborted):
            self._absorb()  # it failed on all members alike, and counts as an op on all of them
            raise
        numel = self._layout.numel
        weights = total[numel:].tolist()
        self._outer_step(total[:numel], sum(weights))
        members = self._session.members_of(outcome.epoch)
        data_epoch = self._ledger.epoch
        self._ledger, used = ledgers.settled(self._ledger, weights)
        self._ledger = ledgers.assigned(self._ledger, members)
        self.round += 1
        manifest = self._absorb()
        self._layout.scatter(self._state.now.theta)
        self._session.round_over(
            round_=self.round,
            epoch=outcome.epoch,
            data_epoch=data_epoch,
            used=used,
            loss=float(self._loss) / self._losses if self._losses else math.nan,
            digest=state_digest(manifest),
            contributed=weight > 0,
            sync_s=time.monotonic() - began,
        )
        self._begin_round()
        self.just_synced = True

    # --- the state's side (atoll.state.sync) ------------------------------------------------------

    def seed(self, revision: int, members: tuple[PeerId, ...]) -> None:
        self._revision = revision
        self._ledger = ledgers.assigned(ledgers.Ledger(), members)

    def targets(self, manifest: Manifest) -> list[torch.Tensor]:
        self._state.check(manifest)
        if self._receiving is None:
            self._receiving = self._state.next()
        return self._state.bytes_of(self._receiving)

    def adopt(self, manifest: Manifest) -> None:
        try:
            ledger = ledgers.from_json(manifest.values["ledger"])
            round_ = int(manifest.values["round"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise errors.MismatchError(
                f"the job's shared state is not DiLoCo's: {error!r}"
            ) from None
        assert self._receiving is not None  # targets() came first
        self._ledger, self.round, self._revision = ledger, round_, manifest.revision
        self._state.advance(self._receiving)
        self._receiving = None
        self._layout.scatter(self._state.now.theta)

    def publish(self) -> None:
        self._publish()

    # --- within -----------------------------------------------------------------------------------

    def _begin_round(self) -> None:
        self._steps = self._samples = self._losses = 0
        self._loss = 0.0
        self._due = self.sync_every

    def _contribution(self) -> tuple[torch.Tensor, float]:
        """([weight * Delta, a slot per member with its weight], this island's weight)."""
        import torch

        numel, slot = self._layout.numel, self._ledger.slot_of(self._session.peer_id)
        vector = torch.zeros(numel + len(self._ledger.shares))
        weight = float(self._samples if self._ledger.plan is not None else self._steps)
        if slot is None or weight == 0:
            return vector, 0.0
        self._layout.gather(self._local)
        delta = torch.sub(self._state.now.theta, self._local, out=vector[:numel])
        if not bool(torch.isfinite(delta).all()):
            logger.error("round %d: this island's parameters are not finite; left out", self.round)
            self._session.count_refused()
            return vector.zero_(), 0.0
        delta.mul_(weight)
        vector[numel + slot] = weight
        return vector, weight

    def _outer_step(self, total: torch.Tensor, weight: float) -> None:
        """theta and momentum take the step along total / weight; no weight: they stay."""
        from atoll import _core

        if weight <= 0:
            return
        now, then = self._state.now, self._state.next()
        _core.nesterov_step(
            then.theta.data_ptr(),
            then.momentum.data_ptr(),
            now.theta.data_ptr(),
            now.momentum.data_ptr(),
            total.data_ptr(),
            self._layout.numel,
            1.0 / weight,
            self.outer_lr,
            self.outer_momentum,
        )
        self._state.advance(then)

    def _absorb(self) -> Manifest:
        """One more op of the channel is part of the state, whatever came of it."""
        self._revision += 1
        return self._publish()

    def _publish(self) -> Manifest:
        manifest = self._state.manifest(
            self._revision, {"round": self.round, "ledger": ledgers.to_json(self._ledger)}
        )
        self._state.publish(self._session.engine, manifest)
        return manifest
