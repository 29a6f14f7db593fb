"""The optimizer of replicas: steps when all have committed, and shares its state with who joins.

Thread: the user's.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NoReturn

import torch

from atoll import errors
from atoll.replicas import schedule
from atoll.replicas import state as states
from atoll.replicas.durable import DurableReplicas
from atoll.replicas.position import begun, from_json, to_json
from atoll.state.manifest import Manifest, bytes_of, describe, encode

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from atoll.membership.messages import PeerId
    from atoll.replicas.parallel import FaultTolerantDDP

logger = logging.getLogger(__name__)

_REPORT_S = 1.0
"""Steps may be short: the coordinator is told this often where a replica is."""


class FaultTolerantOptimizer:
    """Wraps any torch optimizer of a `FaultTolerantDDP` model's parameters.

    Making one joins the view: the job's parameters, buffers, optimizer state and step are fetched,
    or this replica brings its own, or the newest checkpoint's (settings `checkpoint_...`), which
    the oldest replica writes.

        adamw = torch.optim.AdamW(model.parameters())
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, 1000)
        optimizer = atoll.FaultTolerantOptimizer(ddp, adamw, scheduler=cosine, max_norm=1.0)
    """

    def __init__(
        self,
        ddp: FaultTolerantDDP,
        inner: torch.optim.Optimizer,
        *,
        scheduler: LRScheduler | None = None,
        max_norm: float | None = None,
    ) -> None:
        """scheduler: of `inner`, stepped here after every step that is complete; do not step it
        yourself. Shared as the optimizer is. max_norm: the total gradient is scaled down to this
        norm; clipping before `step` is too early, the gradients are still a replica's own.

        Raises MismatchError when the job trains something else, CannotJoin when the view is not
        reached in time, MisuseError for an optimizer or a scheduler whose state is not tensors and
        JSON."""
        self.inner = inner
        """The wrapped optimizer."""
        self.skipped = 0
        """Steps that were left out by all, because the total gradient was not finite."""
        self._ddp = ddp
        self._exchange = ddp.exchange
        self._session = ddp.exchange.session
        self.channel = self._exchange.channel
        """Whose ops are the steps."""
        self._receiving: list[torch.Tensor] = []
        self._published = -1  # revision
        self._offered: frozenset[PeerId] = frozenset()
        self._told_s = 0.0
        if scheduler is not None:
            schedule.check(scheduler, inner)
        if max_norm is not None and not max_norm > 0:
            raise errors.MisuseError(f"max_norm must be above 0, not {max_norm}")
        self._scheduler, self._max_norm = scheduler, max_norm
        self._identity = {**ddp.identity, "max_norm": max_norm}
        self._described()  # raises for what cannot be shared
        self._sync = self._session.share(
            self, DurableReplicas(ddp, inner, scheduler, self._identity)
        )
        self._exchange.serve = self._serve
        while self._exchange.slot is None:  # the running step is others' work
            self._finish(self._exchange.complete(0.0))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The wrapped optimizer's."""
        self.inner.zero_grad(set_to_none)

    def step(self) -> bool:
        """Ends the step with all replicas; returns whether it is complete.

        False: somebody's part is missing (with batch="fixed" a replica was lost, whose
        micro-batches nobody has; otherwise nobody had gradients). Nothing has changed but whose
        work the step is (`slot`, `slots`, `micro_batches()`), and the gradients are gone: compute
        it again.
        Raises Expelled, SessionClosed, MismatchError, DeadlineExceeded or OpAborted; parameters and
        step are then what they were.
        """
        if not self._ddp.complete():
            self._serve()
            return False
        self._step_inner()
        return True

    @property
    def param_groups(self) -> NoReturn:
        """Raises MisuseError: they are `inner`'s. GradScaler and the like look here, and would
        change gradients that have been sent off already."""
        raise errors.MisuseError(
            "the groups are optimizer.inner's; a GradScaler cannot scale gradients that are on "
            "their way: train in bf16, which needs none, and clip with max_norm"
        )

    # --- the state's side (atoll.state.sync) ------------------------------------------------------

    def seed(self, revision: int, members: tuple[PeerId, ...]) -> None:
        position = self._exchange.position
        self._exchange.stand_at(revision, begun(position.buckets, members, step=position.step))

    def present(self) -> list[torch.Tensor]:
        found = self._described()
        return [states.host_bytes(tensor) for tensor in found.tensors.values()]

    def targets(self, manifest: Manifest) -> list[torch.Tensor]:
        states.check(manifest, self._ddp.module, self._identity)
        sizes = [entry.nbytes for entry in manifest.tensors]
        if [each.numel() for each in self._receiving] != sizes:
            self._receiving = [torch.empty(size, dtype=torch.uint8, device="cpu") for size in sizes]
        return self._receiving

    def adopt(self, manifest: Manifest) -> None:
        try:
            position = from_json(manifest.values["position"])
            states.adopt(manifest, self._receiving, self._ddp.module, self.inner, self._scheduler)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise errors.MismatchError(
                f"the job's shared state is not that of replicas: {error!r}"
            ) from None
        self._receiving = []
        self._exchange.line = str(manifest.values.get("line", ""))
        self._exchange.stand_at(manifest.revision, position)

    def publish(self) -> None:
        """Copies and hashes the state, and serves it. Nothing of it is kept up while nobody is
        coming: a step costs nothing for it."""
        found = self._described()
        copies = [states.host_bytes(tensor).clone() for tensor in found.tensors.values()]
        manifest = Manifest(
            revision=self._exchange.revision,
            values={
                "identity": self._identity,
                "line": self._exchange.line,
                "position": to_json(self._exchange.position),
                **found.values,
            },
            tensors=tuple(
                describe(name, bytes_of(copy))
                for name, copy in zip(found.tensors, copies, strict=True)
            ),
        )
        header = torch.frombuffer(bytearray(encode(manifest)), dtype=torch.uint8)
        buffers = [header, *copies]
        self._session.engine.publish(
            manifest.revision, [(each.data_ptr(), each.numel()) for each in buffers], buffers
        )
        self._published = manifest.revision

    # --- within -----------------------------------------------------------------------------------

    def _described(self) -> states.Described:
        return states.described(self._ddp.module, self.inner, self._scheduler)

    def _finish(self, totals: list[torch.Tensor] | None) -> None:
        """A step that others computed: this replica takes it with them."""
        if totals is None:
            return
        self._ddp.load(totals)
        self._step_inner()
        self.inner.zero_grad()

    def _step_inner(self) -> None:
        if self._ddp.is_finite():
            if self._max_norm is not None:
                torch.nn.utils.clip_grad_norm_(self._ddp.module.parameters(), self._max_norm)
            self.inner.step()
        else:
            self.skipped += 1
            logger.error("step %d: the gradient is not finite; left out by all", self._ddp.step)
        if self._scheduler is not None:  # a step that was left out counts, too
            self._scheduler.step()
        self._serve()
        self._session.step_over(self._exchange.epoch)
        now = time.monotonic()
        if now - self._told_s >= _REPORT_S:
            self._told_s = now
            self._session.report(phase="training", round=self._ddp.step)

    def _serve(self) -> None:
        """Publishes the present state when somebody waits for it: a member that does not hold it
        yet, and that the channel's next op cannot pass; or, once, whoever has newly come."""
        waiting, outside = self._sync.missing()
        new = outside - self._offered
        self._offered = outside
        if (waiting or new) and self._published != self._exchange.revision:
            self.publish()
