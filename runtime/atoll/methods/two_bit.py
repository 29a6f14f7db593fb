"""SparseLoCo's numbers on the wire: two bits each with a table of four, places of 12 bits.

arXiv 2508.15706, and the quantizer as arXiv 2603.08163 gives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Bytes = npt.NDArray[np.uint8]


def quantized(values: Tensor) -> tuple[Tensor, Tensor]:
    """(codes uint8 [n], table fp32 [4]) of fp32 values [n], n > 0.

    shift = mean(v), s = 6 * std / 4 (std with n - 1; 1 where it is 0), code = clamp(round((v -
    shift) / s + 2), 0, 3); the table holds the mean of each code's values, 0 for unused ones.
    """
    import torch

    shift = values.mean()
    centered = values - shift
    std = centered.norm() / max(1, values.numel() - 1) ** 0.5
    s = 6 * std / 4
    s = torch.where(s > 0, s, 1.0)
    codes = (centered / s + 2).round().clamp(0, 3).to(torch.int64)
    sums = torch.zeros(4, dtype=torch.float64, device=values.device)
    sums.scatter_add_(0, codes, values.double())
    counts = torch.bincount(codes, minlength=4)
    return codes.to(torch.uint8), (sums / counts.clamp(min=1)).float()


def pack_codes(codes: Bytes) -> Bytes:
    """Four codes of two bits to a byte, the first in the lowest bits; [n] to [ceil(n / 4)]."""
    import numpy as np

    padded = np.zeros(-(-len(codes) // 4) * 4, dtype=np.uint8)
    padded[: len(codes)] = codes
    four = padded.reshape(-1, 4)
    packed = four[:, 0] | four[:, 1] << 2 | four[:, 2] << 4 | four[:, 3] << 6
    return packed.astype(np.uint8)


def unpack_codes(packed: Bytes, count: int) -> Bytes:
    """The inverse: [ceil(count / 4)] to [count]."""
    import numpy as np

    four = np.stack([packed & 3, packed >> 2 & 3, packed >> 4 & 3, packed >> 6], axis=1)
    codes: Bytes = four.reshape(-1)[:count]
    return codes


def pack_places(places: npt.NDArray[np.int64]) -> Bytes:
    """Two 12-bit places i0, i1 to three bytes; of an odd last one two bytes.

    b0 = i0 & 255, b1 = (i0 >> 8) | (i1 & 15) << 4, b2 = i1 >> 4.
    """
    import numpy as np

    padded = np.zeros(-(-len(places) // 2) * 2, dtype=np.int64)
    padded[: len(places)] = places
    first, second = padded[::2], padded[1::2]
    three = np.stack([first & 255, first >> 8 | (second & 15) << 4, second >> 4], axis=1)
    packed: Bytes = three.astype(np.uint8).reshape(-1)[: places_bytes(len(places))]
    return packed


def unpack_places(packed: Bytes, count: int) -> npt.NDArray[np.int64]:
    """The inverse: [places_bytes(count)] to int64 [count], each below 4096."""
    import numpy as np

    padded = np.zeros(-(-count // 2) * 3, dtype=np.int64)
    padded[: len(packed)] = packed
    three = padded.reshape(-1, 3)
    first = three[:, 0] | (three[:, 1] & 15) << 8
    second = three[:, 1] >> 4 | three[:, 2] << 4
    return np.stack([first, second], axis=1).reshape(-1)[:count]


def places_bytes(count: int) -> int:
    """Of `count` packed places."""
    return -(-count * 3 // 2)


def codes_bytes(count: int) -> int:
    """Of `count` packed codes."""
    return -(-count // 4)
