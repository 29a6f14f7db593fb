"""Where a shard's part of a tensor lies in the whole one, and the whole ones made of all parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atoll.checkpoint.manifest import Piece

if TYPE_CHECKING:
    import torch


def pieces_of(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Piece]:
    """By name, of those tensors of which this process has a piece (DTensors)."""
    return {name: _piece_of(tensor) for name, tensor in named if hasattr(tensor, "to_local")}


def _piece_of(tensor: Any) -> Piece:
    from torch.distributed.tensor import Replicate, Shard

    offsets: tuple[int, ...] | None = None
    if {type(placement) for placement in tensor.placements} <= {Shard, Replicate}:
        (chunk,) = tensor.__create_chunk_list__()  # what torch's own checkpoints ask for
        offsets = tuple(chunk.offsets)
    return Piece(shape=tuple(tensor.shape), offsets=offsets)


def assembled(
    parts: Sequence[tuple[Mapping[str, Piece], Mapping[str, torch.Tensor]]],
) -> dict[str, torch.Tensor]:
    """The whole tensors. parts: of every shard, its pieces and its tensors; what is not among the
    pieces is whole, and the first shard's is taken.

    Raises ValueError, with one clause, when something is missing or does not fit.
    """
    found: dict[str, torch.Tensor] = {}
    boxes: dict[str, set[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for pieces, tensors in parts:
        for name, tensor in tensors.items():
            piece = pieces.get(name)
            if name in found and (piece is None) != (name not in boxes):
                raise ValueError(f"{name} is split in one part and not in another")
            if piece is None:
                found.setdefault(name, tensor)
                continue
            if piece.offsets is None:
                raise ValueError(f"{name} is split in a way that cannot be put together")
            whole = found.setdefault(name, tensor.new_empty(piece.shape))
            shape = tuple(tensor.shape)
            if not _fits(piece, shape) or whole.shape != piece.shape or whole.dtype != tensor.dtype:
                raise ValueError(f"{name}: a piece of {list(shape)} does not fit the others")
            if tensor.numel():
                whole[tuple(map(slice, piece.offsets, _ends(piece.offsets, shape)))] = tensor
            boxes.setdefault(name, set()).add((piece.offsets, shape))
    for name, known in boxes.items():
        there, wanted = sum(math.prod(shape) for _, shape in known), found[name].numel()
        if there != wanted:
            raise ValueError(f"of {name} there are {there} of {wanted} elements")
    return found


def _ends(offsets: Sequence[int], shape: Sequence[int]) -> list[int]:
    return [offset + size for offset, size in zip(offsets, shape, strict=True)]


def _fits(piece: Piece, shape: Sequence[int]) -> bool:
    assert piece.offsets is not None  # who asks has looked
    if not len(piece.shape) == len(piece.offsets) == len(shape):
        return False
    ends = _ends(piece.offsets, shape)
    return min(piece.offsets, default=0) >= 0 and all(map(int.__le__, ends, piece.shape))
