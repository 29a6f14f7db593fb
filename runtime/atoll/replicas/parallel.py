"""A model whose gradients are exchanged among replicas while backward runs.

Thread: the user's, and autograd's, which runs while the user's waits in `backward`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from atoll import errors
from atoll.elastic import tree
from atoll.replicas import combining
from atoll.replicas.buckets import buckets_of
from atoll.replicas.combining import Averaged, Ordered
from atoll.replicas.exchange import Exchange

if TYPE_CHECKING:
    from atoll.session import Session


@dataclass(slots=True)
class _Run:
    """The running step. Apart from the module, whose attributes are slow to set."""

    synchronized: bool = True
    running: int | None = None
    """The micro-batch whose backward runs."""
    last: bool = True
    """Nothing comes after it in this step."""
    filled: int = 0
    """Buckets that were sent off."""
    complete: set[int] = field(default_factory=set)
    """Buckets whose gradients were taken."""
    finite: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Views:
    """Of a bucket's vectors, by parameter."""

    of_flat: list[torch.Tensor]
    """Of this replica's gradient; of an ordered bucket there is none."""
    of_total: list[torch.Tensor]


def _is_finite(total: torch.Tensor) -> bool:
    # A sum is finite only if everything in it is; it may overflow by itself.
    return math.isfinite(float(total.sum())) or bool(torch.isfinite(total).all())


class FaultTolerantDDP(torch.nn.Module):
    """Data parallelism in which every step is committed by all replicas, or by those who are left.

        ddp = atoll.FaultTolerantDDP(session, model)
        optimizer = atoll.FaultTolerantOptimizer(ddp, torch.optim.AdamW(model.parameters()))
        while ddp.step < 1000:
            x, y = batch_of(ddp.step, ddp.slot, ddp.slots)
            optimizer.zero_grad()
            loss(ddp(x), y).backward()
            optimizer.step()

    Every replica is an island of the job. Gradients travel in buckets, each as soon as backward has
    filled it; `optimizer.step()` waits for them, and steps when all have committed in one view.

    batch="constant": each replica's batch stays as large as it is, and the mean over the replicas
    (weighted by `weight`) is taken: with fewer replicas the global batch is smaller.
    batch="scaled": the sum over the replicas, divided by `replicas` whoever is there: with fewer of
    them the step is smaller, and the learning rate of a sample stays what it was.
    batch="fixed": the global batch is always `micro_batches` micro-batches, spread over whoever is
    there and added up in the same tree: the trajectory does not depend on the number of replicas,
    to the bit on equal processors. Iterate over `micro_batches()`, with one backward for each:

        for index in ddp.micro_batches():
            loss(ddp(x[index]), y[index]).backward()
        optimizer.step()        # False: a replica was lost; nothing has changed, do it again

    Parameters are fp32, bf16 or fp16, mixed as they may be. Gradients travel and are added up in
    fp32; the total is rounded once, to the parameter's dtype.

    Consistency class: identical, parameters and optimizer state. Bytes per step and replica:
    2 (N - 1) / N S; fixed: (N - 1) K S, K the most tree nodes that a replica sends (1 where N
    divides G and both are powers of two). S: 4 bytes a parameter.

    Churn. A replica that is lost is missing from the running step: constant and scaled exchange
    again what it had part in and commit; fixed does the step again among those who are left.
    Denominator: the weights received; scaled, fixed: a constant. A joiner receives parameters,
    buffers, optimizer state and step, takes part in the running step with nothing, and has a slot
    from the next one on. There is no residual. Buffers are each replica's own otherwise.
    """

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        *,
        batch: Literal["constant", "scaled", "fixed"] = "constant",
        replicas: int | None = None,
        micro_batches: int | None = None,
        bucket_mib: float = 25.0,
        channel: int = 1,
    ) -> None:
        """replicas: of batch="scaled". micro_batches: G, of batch="fixed". bucket_mib: of gradients
        in one op; of sharded replicas all are in one. channel: whose ops these are. All must be
        equal on all replicas.

        Raises MisuseError, and TensorError for parameters that are not fp32, bf16 or fp16.
        """
        super().__init__()
        combining.check(batch, replicas=replicas, micro_batches=micro_batches)
        if batch == "fixed" and session.shards > 1:
            raise errors.MisuseError(
                'batch="fixed" is for islands of one process: after a loss the shards of one might '
                "disagree whether a step is to be done again"
            )
        if not bucket_mib > 0:
            raise errors.MisuseError(f"bucket_mib must be above 0, not {bucket_mib}")
        self.module = model
        """The model itself, for its state dict, say."""
        self.weight = 1.0
        """Of this replica's batch in the mean (constant): its samples, where replicas differ."""
        # Shards are in the same step when they are at the same op: each step is one, for a loss may
        # come between two buckets in one ring and not in another.
        sharded = session.shards > 1
        self._buckets = buckets_of(model, None if sharded else int(bucket_mib * (1 << 20)))
        self._micro_batches = micro_batches
        self._combining: list[Averaged | Ordered] = [
            Averaged(torch.zeros(each.numel, device="cpu"), replicas)
            if micro_batches is None
            else Ordered(each.numel, micro_batches, each.views)
            for each in self._buckets
        ]
        self.exchange = Exchange(session, self._combining, channel=channel)
        """For the optimizer."""
        self._identity = {
            "batch": batch,
            "replicas": replicas,
            "micro_batches": micro_batches,
            "buckets": [each.numel for each in self._buckets],
        }
        self._views = [
            _Views(
                of_flat=bucket.views(how.flat) if isinstance(how, Averaged) else [],
                of_total=bucket.views(how.total),
            )
            for bucket, how in zip(self._buckets, self._combining, strict=True)
        ]
        self._run = _Run()
        for number, bucket in enumerate(self._buckets):
            bucket.arm()
            for index, parameter in enumerate(bucket.parameters):
                hooked: Any = parameter
                hooked.register_post_accumulate_grad_hook(partial(self._came, number, index))

    # --- what people use --------------------------------------------------------------------------

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The model's."""
        return self.module(*inputs, **named)

    @property
    def step(self) -> int:
        """Steps that all replicas have completed."""
        return self.exchange.position.step

    @property
    def slots(self) -> int:
        """How many replicas the running step is the work of."""
        return len(self.exchange.position.assigned)

    @property
    def slot(self) -> int:
        """This replica's place among them, from 0. Raises MisuseError before there is an
        optimizer."""
        slot = self.exchange.slot
        if slot is None:
            raise errors.MisuseError("make the FaultTolerantOptimizer first")
        return slot

    def micro_batches(self) -> Iterator[int]:
        """Indices of [0, G) that this replica computes in the running step, one backward each."""
        if self._micro_batches is None:
            raise errors.MisuseError('micro_batches() is for batch="fixed"')
        self._begin_step()
        share = tree.shares(self._micro_batches, self.slots)[self.slot]
        for place, index in enumerate(share):
            self._run.running, self._run.last = index, place == len(share) - 1
            yield index
            self._flush()
            if not self._run.last:
                self._rearm()

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes within only add to the gradients (not for batch="fixed")."""
        if self._micro_batches is not None:
            raise errors.MisuseError('batch="fixed" needs every micro-batch\'s gradient by itself')
        self._run.synchronized = False
        try:
            yield
        finally:
            self._run.synchronized = True

    # --- for the optimizer ------------------------------------------------------------------------

    @property
    def identity(self) -> dict[str, Any]:
        """What all replicas must have in common: JSON."""
        return self._identity

    def complete(self) -> bool:
        """Ends the step's exchange: whether it has committed. The gradients are then everybody's;
        otherwise there are none."""
        if self._micro_batches is None:
            self._flush()
        try:
            totals = self.exchange.complete(self._weight())
        finally:
            self._begin_step()
        if totals is not None:
            self.load(totals)
            return True
        for bucket in self._buckets:
            bucket.clear()
        return False

    def load(self, totals: list[torch.Tensor]) -> None:
        """The gradients are these, by bucket."""
        finite = all(map(_is_finite, totals))
        for number, total in enumerate(totals):
            bucket = self._buckets[number]
            assert total is self._combining[number].total  # where the views lead
            bucket.scatter(self._views[number].of_total)
            finite = finite and bucket.is_rounded_well()
        self._run.finite = finite

    def is_finite(self) -> bool:
        """Whether the gradients that were loaded last are."""
        return self._run.finite

    # --- within -----------------------------------------------------------------------------------

    def _weight(self) -> float:
        """0 for a replica that has not computed anything."""
        if self._micro_batches is not None:
            return 1.0
        return self.weight if self._run.complete else 0.0

    def _begin_step(self) -> None:
        self._rearm()
        self._run.running, self._run.last = None, True

    def _rearm(self) -> None:
        self._run.filled = 0
        self._run.complete.clear()
        for bucket in self._buckets:
            bucket.arm()

    def _came(self, number: int, index: int, parameter: torch.Tensor) -> None:
        """A gradient is there. Called by autograd."""
        if not self._run.synchronized:
            return
        if self._micro_batches is not None and self._run.running is None:
            raise errors.MisuseError('batch="fixed": iterate over ddp.micro_batches()')
        if self._buckets[number].came(index):
            self._take(number)

    def _take(self, number: int) -> None:
        """A bucket is complete: takes its gradients, and sends off what is next in order."""
        bucket, how = self._buckets[number], self._combining[number]
        self._run.complete.add(number)
        if isinstance(how, Ordered):
            gradient = how.room()
            bucket.gather(gradient.views)
            bucket.clear()
            assert self._run.running is not None  # _came and _flush look
            how.put(self._run.running, gradient)
        else:
            bucket.gather(self._views[number].of_flat)
        while self._run.last and self._run.filled in self._run.complete:
            self.exchange.launch(self._weight())
            self._run.filled += 1

    def _flush(self) -> None:
        """Backward is over: takes what no gradient came for in full."""
        if self._micro_batches is None and all(bucket.is_empty for bucket in self._buckets):
            return
        for number in range(len(self._buckets)):
            if number not in self._run.complete:
                self._take(number)
