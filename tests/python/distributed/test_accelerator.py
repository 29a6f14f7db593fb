"""Tensors of a real accelerator: the same numbers as on the host, in the order of the streams."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from device_calls import CALLS, LateMaker, Maker
from thread_group import PATIENCE_S, Form, Members

from atoll.distributed import ProcessGroup
from atoll.errors import AtollError, DeadlineExceeded, MismatchError, TensorError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")

LONG = 400_000_000
"""Cycles: 0.2 s and more."""
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8]
OPS = dist.ReduceOp


def on_host(members: Members, name: str, dtype: torch.dtype) -> list[list[torch.Tensor]]:
    """By rank, what the call writes."""

    def part(group: ProcessGroup, rank: int) -> list[torch.Tensor]:
        works, written = CALLS[name](group, rank, Maker(rank, dtype, "cpu"))
        for work in works:
            work.wait()
        return written

    return members.each(part)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_what_it_gives_on_the_host(
    members: Members, name: str, dtype: torch.dtype
) -> None:
    def part(group: ProcessGroup, rank: int) -> list[torch.Tensor]:
        works, written = CALLS[name](group, rank, Maker(rank, dtype, "cuda"))
        for work in works:
            work.wait()
        assert all(tensor.is_cuda for tensor in written)
        return [tensor.cpu() for tensor in written]

    for ours, wanted in zip(members.each(part), on_host(members, name, dtype), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, wanted, strict=True))


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_ordered_behind_kernels_that_still_run(members: Members, name: str) -> None:
    """Inputs come late, and outputs are spoilt late; what follows in the stream sees the result."""

    def part(group: ProcessGroup, rank: int) -> list[torch.Tensor]:
        with torch.cuda.stream(torch.cuda.Stream()):
            make = LateMaker(rank, torch.float32, "cuda")
            works, written = CALLS[name](group, rank, make)
            for work in works:
                work.wait()
            after = [tensor + 1 for tensor in written]
            torch.cuda.current_stream().synchronize()
            return [tensor.cpu() - 1 for tensor in after]

    for ours, wanted in zip(members.each(part), on_host(members, name, torch.float32), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, wanted, strict=True))


def test_a_call_returns_while_the_kernel_runs(members: Members) -> None:
    def part(group: ProcessGroup, rank: int) -> float:
        group.allreduce([torch.ones(4, device="cuda")]).wait()  # warm
        with torch.cuda.stream(torch.cuda.Stream()):
            tensor = torch.zeros(4, device="cuda")
            torch.cuda._sleep(LONG)
            tensor += rank + 1
            late = torch.cuda.current_stream().record_event()
            work = group.allreduce([tensor])
            assert not late.query()
            assert not work.is_completed()
            with pytest.raises(DeadlineExceeded):
                work.wait(timedelta(milliseconds=1))
            work.wait()
            assert late.query()
            return float(tensor.sum())

    assert members.each(part) == [24.0] * 3


@pytest.mark.parametrize("how", ["wait", "future"])
def test_a_stream_waits_for_the_copy_of_another(members: Members, how: str) -> None:
    """With a future the result is copied back by the engine's thread, here behind a long kernel."""

    def part(group: ProcessGroup, rank: int) -> float:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            torch.zeros(1000, device="cuda") * 2  # a kernel's first launch waits for everything
        torch.cuda.synchronize()
        tensor = torch.full((1000,), rank + 1.0, device="cuda")
        work = group.allreduce([tensor])
        torch.cuda.current_stream().synchronize()
        torch.cuda._sleep(5 * LONG)
        late = torch.cuda.current_stream().record_event()
        future = work.get_future()
        end_s = time.monotonic() + PATIENCE_S
        while not future.done():
            assert time.monotonic() < end_s
            time.sleep(0.001)  # the engine's thread needs the interpreter
        assert not late.query()
        with torch.cuda.stream(side):
            seen = tensor
            if how == "wait":
                work.wait()
            else:
                (seen,) = future.wait()
            twice = seen * 2
            side.synchronize()
            return float(twice.cpu().mean())

    assert members.each(part) == [12.0] * 3


def test_a_future_is_chained_on_the_device(members: Members) -> None:
    """As hooks of DDP do."""

    def part(group: ProcessGroup, rank: int) -> float:
        with torch.cuda.stream(torch.cuda.Stream()):
            tensor = torch.zeros(1 << 20, device="cuda")
            torch.cuda._sleep(LONG // 4)
            tensor += rank + 1
            half = group.allreduce([tensor]).get_future().then(lambda done: done.wait()[0] / 2)
            return float(half.wait().mean())

    assert members.each(part) == [3.0] * 3


def test_calls_on_both_sides_keep_their_order(members: Members) -> None:
    def part(group: ProcessGroup, rank: int) -> list[float]:
        with torch.cuda.stream(torch.cuda.Stream()):
            far = torch.zeros(3, device="cuda")
            torch.cuda._sleep(LONG // 8 * rank)  # each is late by something else
            far += rank
            near, other = torch.full((3,), float(rank)), torch.full((3,), float(rank))
            works = [
                group.allreduce([far]),
                group.broadcast([near], root=2),
                group.allreduce([other]),
            ]
            for work in reversed(works):
                work.wait()
            return [float(far[0]), float(near[0]), float(other[0])]

    assert members.each(part) == [[3.0, 2.0, 3.0]] * 3


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        (OPS.AVG, torch.bfloat16),
        (OPS.MAX, torch.float16),
        (OPS.MIN, torch.int32),
        (OPS.PRODUCT, torch.float64),
        (OPS.BXOR, torch.int16),
        (OPS.BAND, torch.uint8),
        (OPS.SUM, torch.bool),
        (OPS.SUM, torch.complex64),
        (OPS.SUM, torch.uint16),
    ],
    ids=str,
)
def test_reductions(members: Members, op: OPS.RedOpType, dtype: torch.dtype) -> None:
    def part(group: ProcessGroup, rank: int, device: str) -> torch.Tensor:
        tensor = Maker(rank, dtype, device).numbers(101)
        group.allreduce([tensor], op).wait()
        return tensor.cpu()

    ours = members.each(lambda group, rank: part(group, rank, "cuda"))
    assert all(
        torch.equal(one, other)
        for one, other in zip(ours, members.each(lambda g, r: part(g, r, "cpu")), strict=True)
    )


def test_a_factor_may_lie_on_the_device(members: Members) -> None:
    def part(group: ProcessGroup, rank: int) -> list[float]:
        tensor = torch.full((3,), 2.0, device="cuda")
        scaled = dist._make_nccl_premul_sum(torch.tensor(0.5, device="cuda"))
        group.allreduce([tensor], scaled).wait()
        return tensor.tolist()

    assert members.each(part) == [[3.0] * 3] * 3


def test_lazy_conjugates_and_negatives(members: Members) -> None:
    """Of tensors so large that they are not there yet when the copy has only been asked for."""

    def part(group: ProcessGroup, rank: int) -> tuple[complex, complex, float]:
        with torch.cuda.stream(torch.cuda.Stream()):
            whole = torch.full((1 << 20,), 1 + 2j, device="cuda")
            torch.cuda._sleep(LONG // 8)
            lazy = (whole * 1).conj()
            assert lazy.is_conj()
            group.allreduce([lazy]).wait()
            negative = torch.full((1 << 20,), 1 + 2j, device="cuda").conj().imag
            assert negative.is_neg()
            group.allreduce([negative]).wait()
            return complex(lazy[-1]), complex(lazy[0]), float(negative[-1])

    assert members.each(part) == [(3 - 6j, 3 - 6j, -6.0)] * 3


def test_what_does_not_fit_fails_on_all_and_the_group_goes_on(form: Form) -> None:
    two = form(2)

    def part(group: ProcessGroup, rank: int) -> float:
        with pytest.raises(MismatchError):
            group.allreduce([torch.ones(4 + rank, device="cuda")]).wait()
        future = group.allreduce([torch.ones(4 + rank, device="cuda")]).get_future()
        with pytest.raises(RuntimeError, match="MismatchError"):
            future.wait()
        with pytest.raises(TensorError, match="dense"):
            group.allreduce([torch.eye(3, device="cuda").to_sparse()])
        tensor = torch.ones(4, device="cuda")
        group.allreduce([tensor]).wait()
        return float(tensor[0])

    assert two.each(part) == [2.0] * 2


def test_a_member_that_leaves_ends_what_still_waits_for_a_kernel(form: Form) -> None:
    two = form(2)
    called = threading.Event()

    def part(group: ProcessGroup, rank: int) -> str:
        if rank == 1:
            assert called.wait(PATIENCE_S)
            group.abort()
            return ""
        with torch.cuda.stream(torch.cuda.Stream()):
            tensor = torch.ones(4, device="cuda")
            torch.cuda._sleep(LONG)
            work = group.allreduce([tensor])
            called.set()
            with pytest.raises(AtollError) as raised:
                work.wait()
            return type(raised.value).__name__

    assert two.each(part) == ["GroupBroken", ""]


def test_host_memory_is_free_once_it_is_over(members: Members) -> None:
    """A work that somebody keeps does not keep its pinned memory."""

    nbytes = 4 << 20

    def part(group: ProcessGroup, rank: int, count: int) -> None:
        kept = []
        for _ in range(count):
            kept.append(group.allreduce([torch.ones(nbytes // 4, device="cuda")]))
            kept[-1].wait()
            torch.cuda.synchronize()

    members.each(lambda group, rank: part(group, rank, 1))
    before = torch.cuda.host_memory_stats()["allocated_bytes.current"]
    members.each(lambda group, rank: part(group, rank, 16))
    grown = torch.cuda.host_memory_stats()["allocated_bytes.current"] - before
    assert grown < 8 * len(members) * nbytes
