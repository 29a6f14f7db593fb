"""The collectives of a fixed group over tensors on the host: each becomes ops of the core.

All members call them in the same order, so the n-th runs on the same of the core's channels
everywhere: a few of them at once. What has a size of its own for every pair of members (gather,
scatter, all-to-all) becomes sends and receipts, told apart by n.

Thread: the caller's; calls of one group must not overlap, as torch.distributed asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from atoll.collectives.handle import Handle
from atoll.collectives.tensors import as_moved
from atoll.distributed.anybody import AnyReceipt
from atoll.distributed.fixed import EPOCH, FixedGroup
from atoll.distributed.memory import (
    check_count,
    check_dense,
    check_same,
    flat,
    joined,
    overlap,
    plain,
)
from atoll.distributed.moves import Moves
from atoll.distributed.reduction import Reduction, folded

CHANNELS = 4
"""So many collectives of a group are under way at once."""
PAIR_CHANNEL = CHANNELS
"""Of sends and receipts that a collective is made of."""


class Batch:
    """The ops of one call, and what is to be done when all of them have ended well."""

    __slots__ = ("_after", "handles", "timeout_ns")

    def __init__(self, timeout_ns: int) -> None:
        self.timeout_ns = timeout_ns
        self.handles: list[Handle[Any] | AnyReceipt] = []
        self._after: list[Callable[[], None]] = []

    def after(self, finish: Callable[[], None]) -> None:
        """Calls it at the end, in this order."""
        self._after.append(finish)

    def copy_after(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copies at the end; `source` is reshaped."""
        self._after.append(partial(_copy, target, source))

    def landing(self, tensor: torch.Tensor) -> torch.Tensor:
        """Contiguous memory for what is `tensor` at the end: its own, where that is."""
        if tensor.is_contiguous():
            return tensor
        memory = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        self.copy_after(tensor, memory)
        return memory

    def finish(self) -> None:
        """Does what is to be done at the end."""
        for each in self._after:
            each()


class HostCalls:
    """See the module. Every call adds its ops to a batch and returns at once; all raise
    TensorError, and what ended the group."""

    def __init__(self, group: FixedGroup) -> None:
        self._group = group
        self._engine = group.engine
        self._moves = Moves(group, PAIR_CHANNEL)
        self._calls = 0

    def all_reduce(self, batch: Batch, tensor: torch.Tensor, rule: Reduction) -> None:
        """tensor: any shape; in place."""
        self.reduce(batch, tensor, rule, root=None)

    def reduce(
        self, batch: Batch, tensor: torch.Tensor, rule: Reduction, *, root: int | None
    ) -> None:
        """tensor: any shape; the root's becomes the reduction (None: everybody's)."""
        check_dense(tensor)
        source = rule.source(tensor)
        wanted = root is None or root == self._group.rank
        if rule.fold is not None:
            rows = source.new_empty((self._group.size, *source.shape))
            self._gather_all(batch, source, rows)
            if wanted:
                batch.after(lambda: rule.store(tensor, folded(rows, rule)))
            return
        direct = wanted and tensor.is_contiguous() and rule.wide is None
        target = rule.numbers(tensor) if direct else torch.empty_like(source)
        self._reduce_all(batch, source, target, rule)
        if wanted and not direct:
            batch.after(lambda: rule.store(tensor, target))

    def broadcast(self, batch: Batch, tensor: torch.Tensor, *, root: int) -> None:
        """tensor: any shape; becomes the root's."""
        check_dense(tensor)
        here = root == self._group.rank
        moved = plain(tensor) if here else batch.landing(tensor)
        dtype, width = as_moved(moved)
        engine, channel = self._engine, self._channel()
        self._start(
            batch,
            "broadcast",
            (moved,),
            lambda: engine.broadcast(
                channel,
                moved.data_ptr() if here else 0,
                moved.data_ptr(),
                moved.numel() * width,
                self._group.peers[root],
                dtype=dtype,
                epoch=EPOCH,
                timeout_ns=batch.timeout_ns,
                quiet=True,
                overwrite=True,
            ),
        )

    def all_gather(
        self, batch: Batch, outputs: Sequence[torch.Tensor], source: torch.Tensor
    ) -> None:
        """source: any shape; outputs: a tensor for each rank, of that rank's size."""
        check_same([*outputs], source, "all-gather")
        check_count("outputs", source, outputs[self._group.rank].numel(), "that is this rank's")
        view = joined(outputs)
        rows = source.new_empty(sum(each.numel() for each in outputs)) if view is None else view
        counts = [each.numel() for each in outputs]
        self._gather_all(batch, plain(source), rows, counts)
        if view is None:
            for output, row in zip(outputs, torch.split(rows, counts), strict=True):
                batch.copy_after(output, row)

    def all_gather_single(self, batch: Batch, output: torch.Tensor, source: torch.Tensor) -> None:
        """source: any shape; output: the members' sources, one after the other."""
        check_same([output], source, "all-gather")
        why = f"everybody of {self._group.size} has {source.numel()}"
        check_count("output", output, source.numel() * self._group.size, why)
        self._gather_all(batch, plain(source), batch.landing(output))

    def reduce_scatter(
        self, batch: Batch, output: torch.Tensor, inputs: Sequence[torch.Tensor], rule: Reduction
    ) -> None:
        """inputs: a tensor for each rank; output: the reduction of this rank's."""
        check_same([output], inputs[0], "reduce-scatter")
        check_same(inputs, inputs[0], "reduce-scatter")
        counts = [each.numel() for each in inputs]
        check_count("output", output, counts[self._group.rank], "that is this rank's input")
        if len(set(counts)) == 1:
            self.reduce_scatter_single(batch, output, flat([*inputs]), rule)
            return
        whole = torch.cat([each.reshape(-1) for each in inputs])
        self.all_reduce(batch, whole, rule)
        batch.copy_after(output, torch.split(whole, counts)[self._group.rank])

    def reduce_scatter_single(
        self, batch: Batch, output: torch.Tensor, source: torch.Tensor, rule: Reduction
    ) -> None:
        """source: a part for each rank, one after the other; output: this rank's, reduced."""
        check_same([output], source, "reduce-scatter")
        size, rank = self._group.size, self._group.rank
        why = f"each of {size} gets {output.numel()}"
        check_count("input", source, output.numel() * size, why)
        read = rule.source(source)
        if rule.fold is not None:
            rows = read.new_empty((size, size, read.numel() // size))
            self._gather_all(batch, read, rows)
            batch.after(lambda: rule.store(output, folded(rows[:, rank], rule)))
            return
        direct = output.is_contiguous() and rule.wide is None and not overlap(output, read)
        into = rule.numbers(output) if direct else read.new_empty(read.numel() // size)
        if not direct:
            batch.after(lambda: rule.store(output, into))
        engine, channel = self._engine, self._channel()
        self._start(
            batch,
            "reduce-scatter",
            (read, into),
            lambda: engine.reduce_scatter(
                channel,
                read.data_ptr(),
                into.data_ptr(),
                read.numel(),
                into.numel(),
                dtype=as_moved(read)[0],
                reduction=rule.op,
                epoch=EPOCH,
                timeout_ns=batch.timeout_ns,
                quiet=True,
            ),
        )

    def all_to_all(
        self, batch: Batch, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
    ) -> None:
        """inputs: a tensor for each rank; outputs: one from each rank, of its size."""
        check_same([*outputs, *inputs], inputs[0], "all-to-all")
        here = self._group.rank
        check_count("output", outputs[here], inputs[here].numel(), "that is what stays here")
        tag = self._next()
        for rank in self._others():
            self._receive(batch, outputs[rank], rank, tag)
        for rank in self._others():
            self._send(batch, inputs[rank], rank, tag)
        self._keep(outputs[here], inputs[here])

    def all_to_all_single(self, batch: Batch, output: torch.Tensor, source: torch.Tensor) -> None:
        """source: as many elements for each rank, in order; output: as many from each."""
        check_same([output], source, "all-to-all")
        check_count("output", output, source.numel(), "that is what the input has")
        read, into = plain(source), batch.landing(output)
        if overlap(read, into):
            read = read.clone()
        dtype, width = as_moved(read)
        total = read.numel() * width
        engine, channel = self._engine, self._channel()
        self._start(
            batch,
            "all-to-all",
            (read, into),
            lambda: engine.all_to_all(
                channel,
                read.data_ptr(),
                into.data_ptr(),
                total // self._group.size,
                total,
                dtype=dtype,
                epoch=EPOCH,
                timeout_ns=batch.timeout_ns,
                quiet=True,
            ),
        )

    def gather(
        self, batch: Batch, outputs: Sequence[torch.Tensor], source: torch.Tensor, *, root: int
    ) -> None:
        """source: any shape; outputs: at the root, a tensor for each rank, of its size."""
        tag = self._next()
        if self._group.rank != root:
            check_dense(source)
            self._send(batch, source, root, tag)
            return
        check_same(outputs, source, "gather")
        for rank in self._others():
            self._receive(batch, outputs[rank], rank, tag)
        check_count("output", outputs[root], source.numel(), "that is what stays here")
        self._keep(outputs[root], source)

    def scatter(
        self, batch: Batch, output: torch.Tensor, inputs: Sequence[torch.Tensor], *, root: int
    ) -> None:
        """inputs: at the root, a tensor for each rank; output: this rank's."""
        tag = self._next()
        if self._group.rank != root:
            check_dense(output)
            self._receive(batch, output, root, tag)
            return
        check_same(inputs, output, "scatter")
        check_count("output", output, inputs[root].numel(), "that is what stays here")
        for rank in self._others():
            self._send(batch, inputs[rank], rank, tag)
        self._keep(output, inputs[root])

    def barrier(self, batch: Batch) -> None:
        """All have called it."""
        engine, channel = self._engine, self._channel()
        self._start(
            batch,
            "barrier",
            (),
            lambda: engine.barrier(channel, epoch=EPOCH, timeout_ns=batch.timeout_ns, quiet=True),
        )

    # --- within -----------------------------------------------------------------------------------

    def _next(self) -> int:
        self._calls += 1
        return self._calls

    def _channel(self) -> int:
        return self._next() % CHANNELS

    def _others(self) -> Sequence[int]:
        """The other ranks; each begins with the one after itself, so that not all meet at one."""
        size, rank = self._group.size, self._group.rank
        return [(rank + step) % size for step in range(1, size)]

    def _start(
        self, batch: Batch, kind: str, buffers: tuple[Any, ...], submit: Callable[[], int]
    ) -> None:
        self._group.check()
        handle = self._group.ops.start(
            kind, kind, submit, target=None, buffers=buffers, bound_to=EPOCH
        )
        batch.handles.append(handle)
        self._group.started(handle)

    def _reduce_all(
        self, batch: Batch, source: torch.Tensor, target: torch.Tensor, rule: Reduction
    ) -> None:
        engine, channel = self._engine, self._channel()
        self._start(
            batch,
            "all-reduce",
            (source, target),
            lambda: engine.all_reduce(
                channel,
                source.data_ptr(),
                target.data_ptr(),
                source.numel(),
                dtype=as_moved(source)[0],
                reduction=rule.op,
                epoch=EPOCH,
                timeout_ns=batch.timeout_ns,
                quiet=True,
                overwrite=True,
            ),
        )

    def _gather_all(
        self,
        batch: Batch,
        source: torch.Tensor,
        rows: torch.Tensor,
        counts: Sequence[int] = (),
    ) -> None:
        """rows: contiguous; may hold `source`."""
        read = source.clone() if overlap(source, rows) else source
        dtype, width = as_moved(read)
        engine, channel = self._engine, self._channel()
        uneven = len(set(counts)) > 1
        self._start(
            batch,
            "all-gather",
            (read, rows),
            lambda: engine.all_gather(
                channel,
                read.data_ptr(),
                rows.data_ptr(),
                read.numel() * width,
                rows.numel() * width,
                counts=[count * width for count in counts] if uneven else [],
                dtype=dtype,
                epoch=EPOCH,
                timeout_ns=batch.timeout_ns,
                quiet=True,
            ),
        )

    def _send(self, batch: Batch, tensor: torch.Tensor, rank: int, tag: int) -> None:
        self._group.check()
        batch.handles.append(self._moves.send(plain(tensor), rank, tag, batch.timeout_ns))

    def _receive(self, batch: Batch, tensor: torch.Tensor, rank: int, tag: int) -> None:
        self._group.check()
        into = batch.landing(tensor)
        batch.handles.append(self._moves.receive(into, rank, tag, batch.timeout_ns))

    @staticmethod
    def _keep(output: torch.Tensor, source: torch.Tensor) -> None:
        if output.data_ptr() != source.data_ptr() or not output.is_contiguous():
            output.copy_(source.view(output.shape))


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source.view(target.shape))
