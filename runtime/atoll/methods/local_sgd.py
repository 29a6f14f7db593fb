"""Local SGD: the mean of the parameters, every so many steps (arXiv 1805.09767)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atoll.methods import schedule
from atoll.methods.mean import MeanMethod

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from atoll.methods.batch_size import AdaptiveBatchSize
    from atoll.methods.outer_state import Slot
    from atoll.methods.schedule import Event
    from atoll.session import Session


class LocalSGD(MeanMethod):
    """Every `sync_every` inner steps all islands take the weighted mean of their parameters.

    It is DiLoCo with eta 1 and mu 0, and FedAvg; with SGD inside and sync_every 1 it is data
    parallelism. It travels as Delta, so that a codec loses less.

    Consistency class: identical. Bytes per round and island: 2 (N - 1) / N times the model as
    encoded.

    Churn: a member lost during a round is missing from the mean, which is divided by what was
    received; its samples return to the pool. A joiner receives parameters, round and data position,
    takes part in the running round with weight zero, and contributes from its first full round on.
    The anchor is the last mean. There is neither momentum nor residual; the inner optimizer's state
    stays with its island.
    """

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int = 100,
        codec: str | None = None,
        every: str | None = None,
        straggler_s: float | None = None,
        weights: str = "samples",
        adaptive_batch: AdaptiveBatchSize | None = None,
        plan: str = "auto",
        channel: int = 1,
        parity_every: int = 1,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        """Joins the view and fetches the job's state into the model, or brings its own. Arguments
        and errors as of `DiLoCo`."""
        super().__init__(
            session,
            model,
            inner,
            sync_every=sync_every,
            outer_lr=1.0,
            outer_momentum=0.0,
            codec=codec,
            plan=plan,
            identity={},
            kinds=("theta",),
            every=every,
            straggler_s=straggler_s,
            weights=weights,
            adaptive_batch=adaptive_batch,
            channel=channel,
            parity_every=parity_every,
        )
        self._attach(earlier)

    def _events_of(self, round_: int) -> tuple[Event, ...]:
        return schedule.blocking(round_, period=self.sync_every)

    def _step_along(self, fragment: int, delta: torch.Tensor) -> Slot:
        from atoll import _core

        now, then = self._state.now[fragment], self._state.next(fragment)
        addresses = (then.theta.data_ptr(), now.theta.data_ptr(), delta.data_ptr())
        _core.descend(*addresses, delta.numel(), 1.0, 1.0)
        then.entries = self._state.described(fragment, then)
        return then
