"""What callers of torch.distributed give, as one kind of thing. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch

from atoll import errors

Tensors = list[torch.Tensor]


def nanos_of(timeout: timedelta) -> int:
    """At least a millisecond."""
    return max(1_000_000, int(timeout.total_seconds() * 1e9))


def listed(tensors: torch.Tensor | Tensors) -> Tensors:
    """One tensor is a list of one."""
    return [tensors] if isinstance(tensors, torch.Tensor) else tensors


def lists(tensors: list[Tensors] | Tensors) -> list[Tensors]:
    """One list of tensors for each of several; the caller may have given one list."""
    if tensors and isinstance(tensors[0], torch.Tensor):
        return [tensors]
    return tensors  # type: ignore[return-value]


def root_of(opts: Any, root: int | None) -> int:
    """The root: of torch's options, or a rank itself."""
    if root is not None:
        return root
    if isinstance(opts, int):
        return opts
    return 0 if opts is None else int(opts.rootRank)


def parts_of(
    name: str, tensor: torch.Tensor, sizes: Sequence[int], members: int
) -> Sequence[torch.Tensor]:
    """Rows of a tensor for each member, as many as `sizes` says; equally many when it is empty.

    Raises TensorError when that does not come out.
    """
    rows = tensor.shape[0] if tensor.dim() else 0
    if not sizes:
        if rows % members:
            raise errors.TensorError(
                f"{name} has {rows} rows; without splits it must be a multiple of {members}"
            )
        sizes = [rows // members] * members
    if len(sizes) != members or sum(sizes) != rows:
        raise errors.TensorError(
            f"{name}'s splits {list(sizes)} are not {members} numbers that add up to {rows} rows"
        )
    return torch.split(tensor, list(sizes))
