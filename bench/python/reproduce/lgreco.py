"""L-GreCo on the layers of a gradient: bytes of the allocation beside those of one uniform setting.

Three families: how many numbers of a chunk are kept (top-k in two bits), how many bits each has
(rounded to a grid of the layer's blocks of 256), the rank of a matrix (truncated SVD).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from atoll.methods import allocation, chunks

Layers = dict[str, Tensor]
Setting = tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], int]]


def top_k(k: int) -> Setting:
    """k of 4096 numbers as they are: 12 bits for the place, 32 for the number."""

    def compress(x: Tensor) -> Tensor:
        grid = chunks.grids([x.shape])[0]
        flat = x.flatten()
        at = chunks.positions(chunks.top_k(flat, grid, k), grid, chunks.kept(grid, k))
        out = torch.zeros_like(flat)
        out[at] = flat[at]
        return out.view(x.shape)

    def size(x: Tensor) -> int:
        return -(-sum(chunks.kept(chunks.grids([x.shape])[0], k)) * 44 // 8)

    return f"{k}/4096", compress, size


def bits(width: int) -> Setting:
    """Integers of `width` bits times a scale (fp32) for every 256 numbers, as int4 and int8 are."""
    levels = 2 ** (width - 1) - 1

    def compress(x: Tensor) -> Tensor:
        flat = x.flatten()
        padded = torch.nn.functional.pad(flat, (0, -len(flat) % 256)).view(-1, 256)
        scale = padded.abs().amax(dim=1, keepdim=True) / levels
        safe = torch.where(scale > 0, scale, 1.0)
        rounded = (padded / safe).round() * scale
        return rounded.flatten()[: len(flat)].view(x.shape)

    def size(x: Tensor) -> int:
        return -(-x.numel() * width // 8) + 4 * -(-x.numel() // 256)

    return f"{width} bits", compress, size


def rank(count: int) -> Setting:
    """The best matrix of a rank, sent as two factors in fp32; a vector goes as it is."""

    def compress(x: Tensor) -> Tensor:
        if x.dim() < 2:
            return x
        u, s, v = torch.linalg.svd(x.double(), full_matrices=False)
        return (u[:, :count] * s[:count] @ v[:count]).to(x.dtype)

    def size(x: Tensor) -> int:
        dense = 4 * x.numel()
        return dense if x.dim() < 2 else min(dense, 4 * count * (x.shape[0] + x[0].numel()))

    return f"rank {count}", compress, size


FAMILIES: dict[str, tuple[list[Setting], int]] = {
    # candidates around a reference, and which one that is
    "top-k": ([top_k(k) for k in (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)], 5),
    "bits": ([bits(width) for width in (2, 3, 4, 5, 6, 7, 8)], 2),
    "rank": ([rank(count) for count in (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)], 4),
}


def families(layers: Layers) -> dict[str, Any]:
    """Per family: the uniform setting's bytes and error, the allocation's, and what it chose."""
    return {family: compared(layers, *FAMILIES[family]) for family in FAMILIES}


def compared(layers: Layers, settings: list[Setting], reference: int) -> dict[str, Any]:
    names = list(layers)
    errors = [
        [allocation.compression_error(layers[name], compress) for _, compress, _ in settings]
        for name in names
    ]
    sizes = [[size(layers[name]) for _, _, size in settings] for name in names]
    uniform = [reference] * len(names)
    total = allocation.budget([row[reference] for row in errors])
    choice = allocation.allocate(errors, sizes, total_error=total, reference=uniform)
    uniform_bytes = sum(row[reference] for row in sizes)
    allocated = sum(row[c] for row, c in zip(sizes, choice, strict=True))
    return {
        "reference": settings[reference][0],
        "uniform_bytes": uniform_bytes,
        "uniform_error": total,
        "allocated_bytes": allocated,
        "allocated_error": sum(row[c] for row, c in zip(errors, choice, strict=True)),
        "ratio": uniform_bytes / allocated,
        "settings": {name: settings[c][0] for name, c in zip(names, choice, strict=True)},
    }
