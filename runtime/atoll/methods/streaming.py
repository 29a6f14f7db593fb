"""Streaming DiLoCo: one fragment at a time, while the model computes (arXiv 2501.18512)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atoll import errors
from atoll.methods import fragments as parts
from atoll.methods import schedule
from atoll.methods.mean import MeanMethod

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from atoll.methods.exchange import Exchanged, Staged
    from atoll.methods.schedule import Event
    from atoll.session import Session


class StreamingDiLoCo(MeanMethod):
    """DiLoCo in fragments, exchanged in turn and in the background.

    The model is cut into `fragments` of whole blocks, and one of everything else. Every fragment is
    exchanged once in `sync_every` (H) inner steps, each at its own step; the result is taken up
    `overlap` (tau) steps later: the outer copy takes the Nesterov step, the model's parameters
    become mixing * own + (1 - mixing) * outer. `just_synced` is set when fragment 0 was taken up,
    which ends a round. Evaluate `named_outer_parameters()`.

    Consistency class: identical, of the outer copy; the models differ. Bytes per round and island:
    2 (N - 1) / N of the whole model as encoded, spread over the round.

    Churn. Denominator: a member lost before an op has committed is missing from that fragment's
    mean, which is divided by the weights received; ops that committed keep its part. Its round's
    samples return to the pool unless fragment 0's op had committed. Anchor: each fragment's outer
    parameters, as of its last exchange. A joiner receives outer parameters, momentum, round and
    data position of the op at which it enters, in any phase; it brings nothing until it has had a
    whole round, and takes the outer parameters unmixed until then. Momentum lives with its
    fragment and is everybody's. Residual: none. The inner optimizer's state stays with its island.
    """

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int = 100,
        fragments: int = 4,
        order: parts.Order = "strided",
        overlap: int = 1,
        mixing: float | None = None,
        outer_lr: float = 0.4,
        outer_momentum: float = 0.9,
        codec: str | None = "fp4",
        weights: str = "samples",
        plan: str = "auto",
        channel: int = 1,
        parity_every: int = 1,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        """Joins the view and fetches the job's state into the model, or brings its own.

        fragments: of whole transformer blocks (P), at most as many as there are blocks. order:
        strided, block l in fragment l mod P, or sequential. overlap: tau, in inner steps, below
        sync_every; each island may have its own. mixing: alpha, in [0, 1]; None: 0.5, without
        overlap 0. codec: how Delta travels; None: as fp32. Others as in `DiLoCo`. Raises what
        `DiLoCo` does, and MisuseError for more fragments than blocks or steps.
        """
        if mixing is None:
            mixing = 0.5 if overlap else 0.0
        if not 0 <= mixing <= 1:
            raise errors.MisuseError(f"mixing must be in [0, 1], not {mixing}")
        parts.check_schedule(fragments, period=sync_every, overlap=overlap)
        super().__init__(
            session,
            model,
            inner,
            sync_every=sync_every,
            outer_lr=outer_lr,
            outer_momentum=outer_momentum,
            codec=codec,
            plan=plan,
            identity={"fragments": fragments, "order": order},
            split=lambda names: parts.fragments(names, fragments, order=order),
            background=True,
            lead=True,
            weights=weights,
            channel=channel,
            parity_every=parity_every,
        )
        self.overlap, self.mixing = overlap, mixing
        parts.check_schedule(self._fragments, period=sync_every, overlap=overlap)
        self._offsets = parts.offsets(self._fragments, sync_every)
        self._attach(earlier)

    def _events_of(self, round_: int) -> tuple[Event, ...]:
        return schedule.streaming(
            round_, self._offsets, period=self.sync_every, overlap=self.overlap
        )

    def _into_model(self, fragment: int, staged: Staged, exchanged: Exchanged) -> None:
        part, theta = self._layout.fragments[fragment], self._state.now[fragment].theta
        if staged.weight <= 0:
            # It has no steps of its own in this fragment, or none that count.
            part.scatter(theta)
        elif exchanged.slot is not None:
            part.mix(theta, self.mixing)
