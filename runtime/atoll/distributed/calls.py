"""What torch.distributed calls a process group for: tensors come in, works go out."""

# torch's stubs overload what one method does here, and name the same argument in several ways.
# mypy: disable-error-code="override, assignment"
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from atoll import errors
from atoll.distributed.anybody import AnyReceipt
from atoll.distributed.arguments import Tensors, listed, lists, nanos_of, parts_of, root_of
from atoll.distributed.host import Batch, HostCalls
from atoll.distributed.names import TorchNames
from atoll.distributed.pairs import PairCalls
from atoll.distributed.reduction import reduction_of
from atoll.distributed.staging import Line, Stage
from atoll.distributed.work import Work

Op = dist.ReduceOp | dist.ReduceOp.RedOpType


class TorchCalls(TorchNames):
    """The calls of a process group; the group itself is another's business.

    opts: torch's options; of reductions also a reduction itself. timeout: of this op. All raise
    MisuseError and TensorError for what cannot be, and at once what ended the group.
    """

    _timeout_ns: int
    _line: Line

    @property
    @abstractmethod
    def _calls(self) -> HostCalls:
        """Raises what ended the group."""

    @property
    @abstractmethod
    def _pair_calls(self) -> PairCalls:
        """Raises MisuseError when there is no group yet."""

    # --- collectives ------------------------------------------------------------------------------

    def allreduce(
        self,
        tensors: torch.Tensor | Tensors,
        opts: Any = dist.ReduceOp.SUM,
        timeout: timedelta | None = None,
        *,
        op: Op | None = None,
    ) -> Work:
        """Every tensor becomes the reduction of all members', in place."""
        reduce_op, batch = self._reduction(opts if op is None else op, timeout)
        outputs, calls, stage = listed(tensors), self._calls, Stage()
        rules = [reduction_of(reduce_op, tensor.dtype) for tensor in outputs]
        hosts = [stage.both(tensor) for tensor in outputs]

        def start() -> None:
            for host, rule in zip(hosts, rules, strict=True):
                calls.all_reduce(batch, host, rule)

        return self._work(batch, stage, outputs, start)

    def allreduce_coalesced(self, tensors: Tensors, opts: Any = dist.ReduceOp.SUM) -> Work:
        """As `allreduce`."""
        return self.allreduce(tensors, opts)

    def reduce(
        self,
        tensors: torch.Tensor | Tensors,
        opts: Any = None,
        op: Op = dist.ReduceOp.SUM,
        timeout: timedelta | None = None,
        *,
        root: int | None = None,
    ) -> Work:
        """The root's tensor becomes the reduction; the others' stay as they are."""
        to = self._checked(root_of(opts, root))
        reduce_op, batch = self._reduction(opts if hasattr(opts, "reduceOp") else op, timeout)
        outputs, calls, stage = listed(tensors), self._calls, Stage()
        rules = [reduction_of(reduce_op, tensor.dtype) for tensor in outputs]
        side = stage.both if to == self.rank() else stage.read
        hosts = [side(tensor) for tensor in outputs]

        def start() -> None:
            for host, rule in zip(hosts, rules, strict=True):
                calls.reduce(batch, host, rule, root=to)

        return self._work(batch, stage, outputs, start)

    def broadcast(
        self,
        tensors: torch.Tensor | Tensors,
        opts: Any = None,
        timeout: timedelta | None = None,
        *,
        root: int | None = None,
    ) -> Work:
        """Every tensor becomes the root's."""
        to = self._checked(root_of(opts, root))
        batch, outputs, calls, stage = self._call(tensors, opts, timeout)
        side = stage.read if to == self.rank() else stage.written
        hosts = [side(tensor) for tensor in outputs]

        def start() -> None:
            for host in hosts:
                calls.broadcast(batch, host, root=to)

        return self._work(batch, stage, outputs, start)

    def allgather(
        self,
        output_tensors: list[Tensors] | Tensors,
        input_tensors: torch.Tensor | Tensors,
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:
        """Every member's tensor, by rank; sizes may differ."""
        batch, sources, calls, stage = self._call(input_tensors, opts, timeout)
        given = lists(output_tensors)
        for parts in given:
            self._check_parts(parts)
        hosts = [stage.read(source) for source in sources]
        rows = [[stage.written(part) for part in parts] for parts in given]

        def start() -> None:
            for parts, host in zip(rows, hosts, strict=True):
                calls.all_gather(batch, parts, host)

        return self._work(batch, stage, [part for parts in given for part in parts], start)

    def allgather_coalesced(
        self, output_lists: list[Tensors], input_list: Tensors, opts: Any = None
    ) -> Work:
        """output_lists: by input, a tensor for each rank."""
        return self.allgather(output_lists, input_list, opts)

    def all_gather_single(
        self, output: torch.Tensor, input: torch.Tensor, opts: Any = None
    ) -> Work:
        """All members' tensors in one, by rank."""
        return self.all_gather_single_coalesced([output], [input], opts)

    def all_gather_single_coalesced(
        self, outputs: Tensors, inputs: Tensors, opts: Any = None
    ) -> Work:
        """As `all_gather_single`, for several."""
        batch, _, calls, stage = self._call(inputs, opts)
        sources = [stage.read(source) for source in inputs]
        hosts = [stage.written(output) for output in outputs]

        def start() -> None:
            for host, source in zip(hosts, sources, strict=True):
                calls.all_gather_single(batch, host, source)

        return self._work(batch, stage, outputs, start)

    def gather(
        self,
        output_tensors: list[Tensors] | Tensors,
        input_tensors: torch.Tensor | Tensors,
        opts: Any = None,
        timeout: timedelta | None = None,
        *,
        root: int | None = None,
    ) -> Work:
        """Every member's tensor at the root, by rank; sizes may differ."""
        to = self._checked(root_of(opts, root))
        batch, (source,), calls, stage = self._call(input_tensors, opts, timeout)
        given = lists(output_tensors)
        outputs = given[0] if to == self.rank() and given else []
        if to == self.rank():
            self._check_parts(outputs)
        host, hosts = stage.read(source), [stage.written(output) for output in outputs]
        return self._work(batch, stage, outputs, lambda: calls.gather(batch, hosts, host, root=to))

    def scatter(
        self,
        output_tensors: torch.Tensor | Tensors,
        input_tensors: list[Tensors] | Tensors,
        opts: Any = None,
        timeout: timedelta | None = None,
        *,
        root: int | None = None,
    ) -> Work:
        """The root's tensors, one to each rank; sizes may differ."""
        to = self._checked(root_of(opts, root))
        batch, (output,), calls, stage = self._call(output_tensors, opts, timeout)
        given = lists(input_tensors)
        inputs = given[0] if to == self.rank() and given else []
        if to == self.rank():
            self._check_parts(inputs)
        host, hosts = stage.written(output), [stage.read(source) for source in inputs]
        return self._work(
            batch, stage, [output], lambda: calls.scatter(batch, host, hosts, root=to)
        )

    def reduce_scatter(
        self,
        output_tensors: torch.Tensor | Tensors,
        input_tensors: list[Tensors] | Tensors,
        opts: Any = dist.ReduceOp.SUM,
        timeout: timedelta | None = None,
        *,
        op: Op | None = None,
    ) -> Work:
        """The reduction of what all members have for this rank."""
        reduce_op, batch = self._reduction(opts if op is None else op, timeout)
        outputs, given, calls, stage = (
            listed(output_tensors),
            lists(input_tensors),
            self._calls,
            Stage(),
        )
        for parts in given:
            self._check_parts(parts)
        rules = [reduction_of(reduce_op, output.dtype) for output in outputs]
        sources = [[stage.read(part) for part in parts] for parts in given]
        hosts = [stage.written(output) for output in outputs]

        def start() -> None:
            for host, parts, rule in zip(hosts, sources, rules, strict=True):
                calls.reduce_scatter(batch, host, parts, rule)

        return self._work(batch, stage, outputs, start)

    def reduce_scatter_single(
        self, output: torch.Tensor, input: torch.Tensor, opts: Any = dist.ReduceOp.SUM
    ) -> Work:
        """As `reduce_scatter`, with what is for the ranks in one tensor."""
        return self.reduce_scatter_single_coalesced([output], [input], opts)

    def reduce_scatter_single_coalesced(
        self, outputs: Tensors, inputs: Tensors, opts: Any = dist.ReduceOp.SUM
    ) -> Work:
        """As `reduce_scatter_single`, for several."""
        reduce_op, batch = self._reduction(opts)
        calls, stage = self._calls, Stage()
        rules = [reduction_of(reduce_op, output.dtype) for output in outputs]
        sources = [stage.read(source) for source in inputs]
        hosts = [stage.written(output) for output in outputs]

        def start() -> None:
            for host, source, rule in zip(hosts, sources, rules, strict=True):
                calls.reduce_scatter_single(batch, host, source, rule)

        return self._work(batch, stage, outputs, start)

    def alltoall(
        self,
        outputs: Tensors,
        inputs: Tensors,
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:
        """inputs: one for each rank; outputs: one from each rank."""
        batch, _, calls, stage = self._call(inputs, opts, timeout)
        self._check_parts(outputs)
        self._check_parts(inputs)
        sources = [stage.read(source) for source in inputs]
        hosts = [stage.written(output) for output in outputs]
        return self._work(batch, stage, outputs, lambda: calls.all_to_all(batch, hosts, sources))

    def all_to_all_single(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_split_sizes: Sequence[int] = (),
        input_split_sizes: Sequence[int] = (),
        opts: Any = None,
        timeout: timedelta | None = None,
    ) -> Work:
        """As `alltoall`, with rows of one tensor: splits say how many for (from) each rank. Without
        any, which all members must do alike, all are the same, and it is one op."""
        batch, _, calls, stage = self._call(input, opts, timeout)
        size, host = self.size(), stage.written(output)
        read = stage.read(input)
        into = (
            host
            if host.is_contiguous()
            else torch.empty_like(host, memory_format=torch.contiguous_format)
        )
        parts = parts_of("output", into, output_split_sizes, size)
        sources = parts_of("input", read, input_split_sizes, size)
        if not output_split_sizes and not input_split_sizes:
            return self._work(
                batch, stage, [output], lambda: calls.all_to_all_single(batch, host, read)
            )

        def start() -> None:
            calls.all_to_all(batch, parts, sources)
            if into is not host:
                batch.copy_after(host, into)

        return self._work(batch, stage, [output], start)

    def barrier(self, opts: Any = None, timeout: timedelta | None = None) -> Work:
        """All members have called it."""
        batch, _, calls, stage = self._call([], opts, timeout)
        return self._work(batch, stage, [], lambda: calls.barrier(batch))

    # Names of torch before 2.13.
    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single

    # --- pairs ------------------------------------------------------------------------------------

    def send(self, tensors: Tensors, dstRank: int, tag: int = 0) -> Work:
        """To one member, which receives in the order of the calls of one tag."""
        batch, pairs, stage = self._batch(None), self._pair_calls, Stage()
        pairs.check(dstRank, tag)
        hosts = [stage.read(tensor) for tensor in tensors]

        def start() -> None:
            for host in hosts:
                pairs.send(batch, host, dstRank, tag)

        return self._work(batch, stage, tensors, start)

    def recv(self, tensors: Tensors, srcRank: int, tag: int = 0) -> Work:
        """From one member, what it sends with the same tag."""
        batch, pairs, stage = self._batch(None), self._pair_calls, Stage()
        pairs.check(srcRank, tag)
        hosts = [stage.written(tensor) for tensor in tensors]

        def start() -> None:
            for host in hosts:
                pairs.receive(batch, host, srcRank, tag)

        return self._work(batch, stage, tensors, start, source=lambda: srcRank)

    def recv_anysource(self, tensors: Tensors, tag: int = 0) -> Work:
        """From whoever sends first with this tag; `source_rank()` of the work says who."""
        batch, pairs, stage = self._batch(None), self._pair_calls, Stage()
        pairs.check(None, tag)
        (host,) = [stage.written(tensor) for tensor in tensors]
        receipts: list[AnyReceipt] = []

        def start() -> None:
            receipts.append(pairs.receive_any(batch, host, tag))

        return self._work(batch, stage, tensors, start, source=lambda: receipts[0].rank)

    # --- within -----------------------------------------------------------------------------------

    def _reduction(self, opts: Any, timeout: timedelta | None = None) -> tuple[Op, Batch]:
        """opts: torch's options, or a reduction."""
        return getattr(opts, "reduceOp", opts), self._batch(opts, timeout)

    def _batch(self, opts: Any, timeout: timedelta | None = None) -> Batch:
        own = getattr(opts, "timeout", None) if timeout is None else timeout
        if own is None or own.days < 0:  # torch's way to say that it is not set
            return Batch(self._timeout_ns)
        return Batch(nanos_of(own))

    def _call(
        self, tensors: torch.Tensor | Tensors, opts: Any, timeout: timedelta | None = None
    ) -> tuple[Batch, Tensors, HostCalls, Stage]:
        return self._batch(opts, timeout), listed(tensors), self._calls, Stage()

    def _work(
        self,
        batch: Batch,
        stage: Stage,
        outputs: Tensors,
        start: Callable[[], None],
        source: Callable[[], int] | None = None,
    ) -> Work:
        """Starts the batch's ops when it is its turn; the work ends with them."""

        def begin() -> list[Any]:
            start()
            return batch.handles

        if stage.device is None and self._line.idle:
            return Work(begin(), outputs, batch.finish, source)

        def finish() -> torch.Event | None:
            batch.finish()
            return stage.copy_back()

        handles = self._line.join(stage.copied(), begin)
        return Work(handles, outputs, finish, source, device=stage.device)

    def _checked(self, rank: int) -> int:
        size = self.size()
        if not 0 <= rank < size:
            raise errors.MisuseError(f"root {rank} is no rank of a group of {size}")
        return rank

    def _check_parts(self, tensors: Sequence[torch.Tensor]) -> None:
        if len(tensors) != self.size():
            raise errors.MisuseError(f"{len(tensors)} tensors for a group of {self.size()} members")
