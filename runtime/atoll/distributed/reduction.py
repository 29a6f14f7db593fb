"""torch's reductions of torch's dtypes, as the core can do them. Pure.

    what                             how
    bool: SUM, MAX, BOR              max of bytes          (True + True is True, as nccl has it)
    bool: PRODUCT, MIN, BAND         min of bytes
    int16, uint16; uint32            as int32; int64, whose low bits are exact, then cut
    uint64: SUM, PRODUCT             as int64: the same bits
    complex: SUM, AVG, PREMUL_SUM    as pairs of reals
    PREMUL_SUM                       every member scales its own, then SUM
    BAND, BOR, BXOR of integers      everything is gathered, and folded in order of the ranks

Everything else is refused with what to do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed import ReduceOp

from atoll import errors
from atoll.collectives.tensors import DTYPES

_NAMES = {
    ReduceOp.SUM: "sum",
    ReduceOp.AVG: "avg",
    ReduceOp.MIN: "min",
    ReduceOp.MAX: "max",
    ReduceOp.PRODUCT: "product",
    ReduceOp.PREMUL_SUM: "sum",
}
_OF_BOOL = {
    ReduceOp.SUM: "max",
    ReduceOp.MAX: "max",
    ReduceOp.BOR: "max",
    ReduceOp.PRODUCT: "min",
    ReduceOp.MIN: "min",
    ReduceOp.BAND: "min",
}
_BITWISE: dict[ReduceOp.RedOpType, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    ReduceOp.BAND: torch.bitwise_and,
    ReduceOp.BOR: torch.bitwise_or,
    ReduceOp.BXOR: torch.bitwise_xor,
}
_WIDER = {torch.int16: torch.int32, torch.uint16: torch.int32, torch.uint32: torch.int64}
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_REAL = {torch.complex32: torch.float16, torch.complex64: torch.float32}
_REAL[torch.complex128] = torch.float64
_CORE = frozenset(getattr(torch, name) for name in DTYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """How tensors of one dtype are reduced by one op."""

    op: str  # the core's name; empty: everything is gathered and `fold`ed
    seen_as: torch.dtype | None = None  # the tensor's memory is taken for numbers of this dtype
    wide: torch.dtype | None = None  # they travel as this
    fold: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    factor: float | torch.Tensor | None = None  # of this member, before the sum

    @property
    def direct(self) -> bool:
        """The core can read and write the tensors themselves."""
        return self.wide is None and self.fold is None and self.factor is None

    def numbers(self, tensor: torch.Tensor) -> torch.Tensor:
        """The memory of a contiguous tensor as numbers of a kind that the core knows."""
        if self.seen_as is None:
            return tensor
        return torch.view_as_real(tensor) if tensor.is_complex() else tensor.view(self.seen_as)

    def source(self, tensor: torch.Tensor) -> torch.Tensor:
        """What this member contributes; `tensor` itself where that is possible."""
        read = self.numbers(tensor.resolve_conj().resolve_neg().contiguous())
        if self.factor is not None:
            read = read * self.factor
        return read if self.wide is None else read.to(self.wide)

    def store(self, target: torch.Tensor, numbers: torch.Tensor) -> None:
        """Copies numbers such as `source` gives to where they belong. target: any layout."""
        if target.is_complex():
            numbers = torch.view_as_complex(numbers.view(*target.shape, 2))
        elif self.seen_as is not None:
            numbers = numbers.view(target.dtype)
        target.copy_(numbers.view(target.shape))


def reduction_of(op: ReduceOp | ReduceOp.RedOpType, dtype: torch.dtype) -> Reduction:
    """How to reduce tensors of this dtype. Raises TensorError when there is no exact way."""
    kind = op if isinstance(op, ReduceOp.RedOpType) else _kind_of(op)
    rule = _rule(kind, dtype)
    if kind != ReduceOp.PREMUL_SUM:
        return rule
    if isinstance(op, ReduceOp.RedOpType):
        raise errors.MisuseError("PREMUL_SUM has no factor; make it with PREMUL_SUM(factor)")
    state: Any = op.__getstate__()
    factor = state[1]  # `op.factor`, which torch 2.11 lacks
    if isinstance(factor, torch.Tensor) and factor.numel() != 1:
        raise errors.TensorError("PREMUL_SUM takes one factor, a number or a tensor of one")
    value = float(factor) if isinstance(factor, torch.Tensor) else factor
    return Reduction(op=rule.op, seen_as=rule.seen_as, wide=rule.wide, factor=value)


def _kind_of(op: ReduceOp) -> ReduceOp.RedOpType:
    kind: ReduceOp.RedOpType = op.op  # type: ignore[attr-defined]
    return kind


@functools.cache
def _rule(kind: ReduceOp.RedOpType, dtype: torch.dtype) -> Reduction:
    def refused(why: str) -> errors.TensorError:
        return errors.TensorError(f"{kind.name} of {dtype_name_of(dtype)}: {why}")

    if dtype == torch.bool:
        if kind in _OF_BOOL:
            return Reduction(op=_OF_BOOL[kind], seen_as=torch.uint8)
        if kind == ReduceOp.BXOR:
            return Reduction(op="", seen_as=torch.uint8, fold=_BITWISE[kind])
        raise refused("a truth value has none; convert it with .to(torch.float32)")
    if kind in _BITWISE:
        if dtype.is_floating_point or dtype.is_complex:
            raise refused("bitwise reductions take integers and bool")
        return Reduction(op="", seen_as=_SIGNED.get(dtype), fold=_BITWISE[kind])
    if kind not in _NAMES:
        raise refused("this reduction is not known")
    if dtype.is_complex:
        if kind not in (ReduceOp.SUM, ReduceOp.AVG, ReduceOp.PREMUL_SUM):
            raise refused("complex numbers have no order, and their product is no product of parts")
        return Reduction(op=_NAMES[kind], seen_as=_REAL[dtype])
    if kind == ReduceOp.PREMUL_SUM and not dtype.is_floating_point:
        raise refused("only floating-point numbers are scaled")
    if dtype == torch.uint64 and kind in (ReduceOp.SUM, ReduceOp.PRODUCT):
        return Reduction(op=_NAMES[kind], seen_as=torch.int64)
    if dtype in _WIDER:
        return Reduction(op=_NAMES[kind], wide=_WIDER[dtype])
    if dtype in _CORE:
        return Reduction(op=_NAMES[kind])
    raise refused(
        f"reductions take {', '.join(DTYPES)} and what is exact as one of them; use .to()"
    )


def dtype_name_of(dtype: torch.dtype) -> str:
    """float32, say."""
    return str(dtype).removeprefix("torch.")


def folded(rows: torch.Tensor, rule: Reduction) -> torch.Tensor:
    """rows: [members, ...]. The reduction of a gathered tensor, in order of the ranks."""
    assert rule.fold is not None
    return functools.reduce(rule.fold, rows.unbind(0))
