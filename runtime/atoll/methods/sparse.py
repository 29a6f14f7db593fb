"""SparseLoCo: the largest outer gradients in two bits, with error feedback (arXiv 2508.15706).

A payload holds, tensor by tensor, the table of four (fp32, little-endian), the places (12 bits
each, `two_bit.pack_places`) and the codes (2 bits each). How many there are follows from the
shapes, so a model's payloads all have the same size. Whoever decodes one gets the same bits.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.errors import MisuseError
from atoll.methods import chunks, two_bit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Bytes = npt.NDArray[np.uint8]

TABLE_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where a tensor's share of a payload lies."""

    grid: chunks.Grid
    kept: tuple[int, ...]  # entries by chunk
    begin: int  # bytes

    @property
    def entries(self) -> int:
        return sum(self.kept)

    @property
    def end(self) -> int:
        count = self.entries
        return self.begin + TABLE_BYTES + two_bit.places_bytes(count) + two_bit.codes_bytes(count)


class SparseLayout:
    """The form of all payloads of one model."""

    def __init__(self, shapes: Sequence[Sequence[int]], *, k: int = 64) -> None:
        """shapes: of the tensors, in their order in the flat vector. k: kept of 4096 elements.

        Raises MisuseError for a k that is impossible or at which a dense codec is cheaper.
        """
        chunks.check_k(k)
        self.k = k
        parts: list[Part] = []
        begin = 0
        for grid in chunks.grids(shapes):
            part = Part(grid=grid, kept=tuple(chunks.kept(grid, k)), begin=begin)
            parts.append(part)
            begin = part.end
        self.parts = tuple(parts)
        self.numel = sum(part.grid.numel for part in parts)
        self.entries = sum(part.entries for part in parts)
        self.payload_bytes = begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What a payload says: entries of a flat vector, each position once."""

    positions: Tensor  # int64 [entries]
    values: Tensor  # fp32 [entries]
    norm: float  # of the values, in double, the same on every machine


def accumulated(e: Tensor, delta: Tensor, *, beta: float) -> Tensor:
    """e <- beta * e + Delta, all flat [numel]: the residual decayed, and what is new.

    Algorithm 1, line 8. A joiner begins with e = 0.
    """
    return beta * e + delta


def encode(e: Tensor, layout: SparseLayout) -> Bytes:
    """Q(TopK(e)) as bytes [payload_bytes], of the accumulated e, fp32 [numel], on any device."""
    import numpy as np
    import torch

    payload = np.empty(layout.payload_bytes, dtype=np.uint8)
    for part in layout.parts:
        grid = part.grid
        places = chunks.top_k(e[grid.begin : grid.begin + grid.numel], grid, layout.k)
        values = e[chunks.positions(places, grid, part.kept)]
        codes, table = two_bit.quantized(values)
        fields = (
            table.cpu().numpy().astype("<f4").view(np.uint8),
            two_bit.pack_places(places.to(device="cpu", dtype=torch.int64).numpy()),
            two_bit.pack_codes(codes.cpu().numpy()),
        )
        payload[part.begin : part.end] = np.concatenate(fields)
    return payload


def decode(payload: Bytes, layout: SparseLayout) -> Decoded:
    """What the bytes say, on the host.

    Raises MisuseError for a payload of another size, with numbers that are not finite, or with
    places that are not there or there twice; it may come from the network.
    """
    import numpy as np
    import torch

    if payload.shape != (layout.payload_bytes,):
        raise MisuseError(
            f"a sparse payload has {payload.size} bytes, this model's have {layout.payload_bytes}"
        )
    places, values = [], []
    square = 0.0
    for part in layout.parts:
        count = part.entries
        table_end = part.begin + TABLE_BYTES
        places_end = table_end + two_bit.places_bytes(count)
        table = payload[part.begin : table_end].view("<f4").astype(np.float32)
        if not np.isfinite(table).all():
            raise MisuseError("a sparse payload holds numbers that are not finite")
        found = two_bit.unpack_places(payload[table_end:places_end], count)
        codes = two_bit.unpack_codes(payload[places_end : part.end], count)
        places.append(chunks.positions(torch.from_numpy(found), part.grid, part.kept))
        values.append(torch.from_numpy(table[codes]))
        for number, times in zip(
            table.tolist(), np.bincount(codes, minlength=4).tolist(), strict=True
        ):
            square += times * number * number
    return Decoded(positions=torch.cat(places), values=torch.cat(values), norm=math.sqrt(square))


def residual(e: Tensor, decoded: Decoded) -> Tensor:
    """e <- e - hat, [numel]: includes what quantization lost. Algorithm 1, line 10."""
    left = e.clone()
    left[decoded.positions.to(e.device)] -= decoded.values.to(e.device)
    return left


def median_norm_factors(norms: Sequence[float]) -> tuple[float, ...]:
    """min(1, median ||v|| / ||v_r||) for each member r: a payload that is too loud is scaled down.

    arXiv 2603.08163. An option; without it all factors are 1.
    """
    median = statistics.median(norms)
    return tuple(min(1.0, median / norm) if norm > 0 else 1.0 for norm in norms)


def decoded_sum(
    decoded: Sequence[Decoded], numel: int, *, factors: Sequence[float] | None = None
) -> Tensor:
    """sum over r of hat_r, fp32 [numel], added in the order given (the members'), on the host.

    The core's kernel: every member gets the same bits.
    """
    import torch

    from atoll import _core

    total = torch.zeros(numel, device="cpu")
    for member, one in enumerate(decoded):
        _core.scatter_add(
            total.data_ptr(),
            numel,
            one.positions.data_ptr(),
            one.values.data_ptr(),
            one.values.numel(),
            1.0 if factors is None else factors[member],
        )
    return total


def sparseloco_step(theta: Tensor, total: Tensor, *, alpha: float, members: int) -> Tensor:
    """theta <- theta - alpha * (1/R) * sum_r hat_r, fp32 [numel] on the host; R = members.

    Divided by R, not by the contributors of a coordinate. The core's kernel (`_core.descend`).
    Algorithm 1, line 12.
    """
    import torch

    from atoll import _core

    out = torch.empty_like(theta)
    _core.descend(
        out.data_ptr(), theta.data_ptr(), total.data_ptr(), theta.numel(), 1 / members, alpha
    )
    return out


def place_entropy_bits(k: int = 64, chunk: int = chunks.CHUNK) -> float:
    """log2 of (chunk over k), per kept number: what places cost at least; 12 bits are sent."""
    return math.log2(math.comb(chunk, k)) / k


def break_even_members(k: int = 64, *, dense_bits: float = 8.0) -> float:
    """From how many members on a ring all-reduce of `dense_bits` a parameter sends fewer bytes.

    The all-gather sends (R - 1) * 14 k / 4096 bits a parameter, the ring 2 (R - 1) / R times
    dense_bits.
    """
    return 2 * dense_bits / (14 * k / chunks.CHUNK)
