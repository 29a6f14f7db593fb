"""Where tensors lie. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atoll import errors


def check_dense(tensor: torch.Tensor) -> None:
    """Raises TensorError for sparse tensors and the like."""
    if tensor.layout != torch.strided:
        raise errors.TensorError(f"a tensor is {tensor.layout}; pass it dense: tensor.to_dense()")


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in contiguous memory."""
    return tensor.resolve_conj().resolve_neg().contiguous()


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two contiguous tensors share memory."""
    first, second = one.data_ptr(), other.data_ptr()
    return first < second + other.nbytes and second < first + one.nbytes


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The tensors as one flat tensor, if they lie one after the other in one storage."""
    first = tensors[0]
    at = first.data_ptr()
    storage = first.untyped_storage().data_ptr()
    for tensor in tensors:
        if (
            not tensor.is_contiguous()
            or tensor.data_ptr() != at
            or tensor.dtype != first.dtype
            or tensor.untyped_storage().data_ptr() != storage
        ):
            return None
        at += tensor.nbytes
    count = sum(tensor.numel() for tensor in tensors)
    return first.as_strided((count,), (1,))


def flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The tensors as one flat tensor: a view where that is possible, else a copy."""
    view = joined(tensors)
    return torch.cat([tensor.reshape(-1) for tensor in tensors]) if view is None else view


def check_same(tensors: Sequence[torch.Tensor], like: torch.Tensor, what: str) -> None:
    """Raises TensorError unless all are of `like`'s dtype."""
    for tensor in tensors:
        check_dense(tensor)
        if tensor.dtype != like.dtype:
            raise errors.TensorError(
                f"{what}: a tensor is {tensor.dtype}, another {like.dtype}; they must be equal"
            )


def check_count(what: str, tensor: torch.Tensor, count: int, why: str) -> None:
    """Raises TensorError unless the tensor has `count` elements."""
    if tensor.numel() != count:
        raise errors.TensorError(f"{what} has {tensor.numel()} elements, not {count}: {why}")
