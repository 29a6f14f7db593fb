"""The optimizer of replicas: steps when all have committed, and shares its state with who joins.

Thread: the user's.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import torch

from atoll import errors
from atoll.replicas import state as states
from atoll.replicas.durable import DurableReplicas
from atoll.replicas.position import begun, from_json, to_json
from atoll.state.manifest import Manifest, bytes_of, describe, encode

if TYPE_CHECKING:
    from atoll.membership.messages import PeerId
    from atoll.replicas.parallel import FaultTolerantDDP

logger = logging.getLogger(__name__)

_REPORT_S = 1.0
"""Steps may be short: the coordinator is told this often where a replica is."""


class FaultTolerantOptimizer:
    """Wraps any torch optimizer of a `FaultTolerantDDP` model's parameters.

    Making one joins the view: the job's parameters, buffers, optimizer state and step are fetched,
    or this replica brings its own, or the newest checkpoint's (settings `checkpoint_...`), which
    the oldest replica writes. Schedulers go on the wrapped optimizer; derive them from `ddp.step`,
    a joiner receives the groups' present learning rates alone.
    """

    def __init__(self, ddp: FaultTolerantDDP, inner: torch.optim.Optimizer) -> None:
        """Raises MismatchError when the job trains something else, CannotJoin when the view is not
        reached in time, MisuseError for an optimizer whose state is not tensors and JSON."""
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
        states.described(ddp.module, inner)  # raises for what cannot be shared
        self._sync = self._session.share(self, DurableReplicas(ddp, inner))
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

    # --- the state's side (atoll.state.sync) ------------------------------------------------------

    def seed(self, revision: int, members: tuple[PeerId, ...]) -> None:
        position = self._exchange.position
        self._exchange.stand_at(revision, begun(position.buckets, members, step=position.step))

    def present(self) -> list[torch.Tensor]:
        found = states.described(self._ddp.module, self.inner)
        return [states.host_bytes(tensor) for tensor in found.tensors.values()]

    def targets(self, manifest: Manifest) -> list[torch.Tensor]:
        states.check(manifest, self._ddp.module, self._ddp.identity)
        sizes = [entry.nbytes for entry in manifest.tensors]
        if [each.numel() for each in self._receiving] != sizes:
            self._receiving = [torch.empty(size, dtype=torch.uint8, device="cpu") for size in sizes]
        return self._receiving

    def adopt(self, manifest: Manifest) -> None:
        try:
            position = from_json(manifest.values["position"])
            states.adopt(manifest, self._receiving, self._ddp.module, self.inner)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise errors.MismatchError(
                f"the job's shared state is not that of replicas: {error!r}"
            ) from None
        self._receiving = []
        self._exchange.stand_at(manifest.revision, position)

    def publish(self) -> None:
        """Copies and hashes the state, and serves it. Nothing of it is kept up while nobody is
        coming: a step costs nothing for it."""
        found = states.described(self._ddp.module, self.inner)
        copies = [states.host_bytes(tensor).clone() for tensor in found.tensors.values()]
        manifest = Manifest(
            revision=self._exchange.revision,
            values={
                "identity": self._ddp.identity,
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

    def _finish(self, totals: list[torch.Tensor] | None) -> None:
        """A step that others computed: this replica takes it with them."""
        if totals is None:
            return
        self._ddp.load(totals)
        self._step_inner()
        self.inner.zero_grad()

    def _step_inner(self) -> None:
        if self._ddp.is_finite():
            self.inner.step()
        else:
            self.skipped += 1
            logger.error("step %d: the gradient is not finite; left out by all", self._ddp.step)
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
