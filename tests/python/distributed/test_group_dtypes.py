"""Reductions of every dtype against NumPy, and those that have no exact way."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch
import torch.distributed as dist
from thread_group import Members

from atoll.distributed import ProcessGroup
from atoll.distributed.reduction import reduction_of
from atoll.errors import MisuseError, TensorError

OPS = {
    dist.ReduceOp.SUM: np.add,
    dist.ReduceOp.PRODUCT: np.multiply,
    dist.ReduceOp.MIN: np.minimum,
    dist.ReduceOp.MAX: np.maximum,
    dist.ReduceOp.BAND: np.bitwise_and,
    dist.ReduceOp.BOR: np.bitwise_or,
    dist.ReduceOp.BXOR: np.bitwise_xor,
}
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def drawn(rank: int, dtype: str, count: int = 33) -> np.ndarray:
    bits = np.random.default_rng(rank).integers(0, 256, count * 8, dtype=np.uint8)
    return bits.view(dtype)[:count].copy()


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        (op, dtype)
        for op in OPS
        for dtype in INTEGERS
        if dtype != "uint64" or op not in (dist.ReduceOp.MIN, dist.ReduceOp.MAX)
    ],
)
def test_integers_of_any_bits(members: Members, op: dist.ReduceOp.RedOpType, dtype: str) -> None:
    arrays = [drawn(rank, dtype) for rank in range(3)]
    wanted = reduce(OPS[op], arrays)
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    members.each(lambda group, rank: group.allreduce(tensors[rank], op).wait())
    for tensor in tensors:
        assert np.array_equal(tensor.numpy(), wanted)
    # And where a part of it goes to each.
    parts = [torch.from_numpy(np.zeros(11, dtype)) for _ in range(3)]
    sources = [torch.from_numpy(array.copy()) for array in arrays]
    members.each(
        lambda group, rank: group.reduce_scatter_single(parts[rank], sources[rank], op).wait()
    )
    assert np.array_equal(np.concatenate([part.numpy() for part in parts]), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats(members: Members, dtype: torch.dtype) -> None:
    for op, wanted in [
        (dist.ReduceOp.SUM, 10.0),
        (dist.ReduceOp.AVG, 10.0 / 3),
        (dist.ReduceOp.MIN, 1.0),
        (dist.ReduceOp.MAX, 7.0),
        (dist.ReduceOp.PRODUCT, 14.0),
    ]:
        tensors = [torch.tensor([value], dtype=dtype) for value in (1.0, 2.0, 7.0)]
        members.each(
            lambda group, rank, op=op, all_=tensors: group.allreduce(all_[rank], op).wait()
        )
        for tensor in tensors:
            assert tensor.item() == torch.tensor(wanted, dtype=dtype).item()


def test_truth_values_stay_truth_values(members: Members) -> None:
    rows = [[True, True, False], [True, False, False], [True, True, False]]
    for op, wanted in [
        (dist.ReduceOp.SUM, [True, True, False]),
        (dist.ReduceOp.BOR, [True, True, False]),
        (dist.ReduceOp.MAX, [True, True, False]),
        (dist.ReduceOp.PRODUCT, [True, False, False]),
        (dist.ReduceOp.BAND, [True, False, False]),
        (dist.ReduceOp.BXOR, [True, False, False]),
    ]:
        tensors = [torch.tensor(row) for row in rows]
        members.each(
            lambda group, rank, op=op, all_=tensors: group.allreduce(all_[rank], op).wait()
        )
        for tensor in tensors:
            assert tensor.dtype == torch.bool
            assert tensor.tolist() == wanted
            assert set(tensor.view(torch.uint8).tolist()) <= {0, 1}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_sums(members: Members, dtype: torch.dtype) -> None:
    tensors = [torch.tensor([1 + 2j, -3j], dtype=dtype) * (rank + 1) for rank in range(3)]
    total = sum(tensors)
    members.each(lambda group, rank: group.allreduce(tensors[rank]).wait())
    for tensor in tensors:
        assert torch.equal(tensor, total)


def test_a_sum_of_what_each_has_scaled(members: Members) -> None:
    tensors = [torch.full((5,), rank + 1.0) for rank in range(3)]

    def part(group: ProcessGroup, rank: int) -> None:
        group.allreduce([tensors[rank]], dist._make_nccl_premul_sum(0.5)).wait()

    members.each(part)
    for tensor in tensors:
        assert torch.equal(tensor, torch.full((5,), 3.0))


@pytest.mark.parametrize(
    ("op", "dtype", "says"),
    [
        (dist.ReduceOp.BAND, torch.float32, "BAND of float32: bitwise reductions take integers"),
        (dist.ReduceOp.MAX, torch.complex64, "MAX of complex64: complex numbers have no order"),
        (dist.ReduceOp.AVG, torch.bool, "AVG of bool"),
        (dist.ReduceOp.MAX, torch.uint64, "MAX of uint64"),
        (dist.ReduceOp.SUM, torch.float8_e4m3fn, "SUM of float8_e4m3fn: reductions take float32"),
    ],
)
def test_what_has_no_exact_way_is_refused(
    op: dist.ReduceOp.RedOpType, dtype: torch.dtype, says: str
) -> None:
    with pytest.raises(TensorError, match=says):
        reduction_of(op, dtype)


def test_a_scaled_sum_needs_its_factor() -> None:
    with pytest.raises(MisuseError, match="PREMUL_SUM has no factor"):
        reduction_of(dist.ReduceOp.PREMUL_SUM, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bool, torch.complex128])
def test_everything_can_be_moved(members: Members, dtype: torch.dtype) -> None:
    sources = [torch.tensor([rank, 1.0]).to(dtype) for rank in range(3)]
    outputs = [torch.zeros(6).to(dtype) for _ in range(3)]
    members.each(lambda group, rank: group.all_gather_single(outputs[rank], sources[rank]).wait())
    wanted = torch.cat([source.view(torch.uint8) for source in sources])
    for output in outputs:
        assert torch.equal(output.view(torch.uint8), wanted)
