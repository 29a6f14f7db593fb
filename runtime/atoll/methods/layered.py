"""A flat vector of several layers, each of which travels in a codec of its own. Functions of bytes.

Any thread. All bytes decode, so what came from others needs only the right length.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from atoll.methods.allocation import compression_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

CANDIDATES = ("two_bit", "fp4", "int4", "int8", "bf16")
"""What a layer may travel in: 2.1, 4.1, 4.5, 8.1 and 16 bits a number."""


class Layered:
    """The codecs of the layers, in the vector's order. `nbytes`: of the whole vector, encoded."""

    def __init__(self, sizes: Sequence[int], codecs: Sequence[str]) -> None:
        """sizes: elements of each layer. codecs: as many, as in docs/codecs.md."""
        from atoll import _core

        self.codecs = tuple(codecs)
        self.sizes = tuple(sizes)
        encoded = [_core.encoded_bytes(c, n) for c, n in zip(self.codecs, self.sizes, strict=True)]
        self._places = list(pairwise(accumulate(encoded, initial=0)))
        self._parts = [slice(*pair) for pair in pairwise(accumulate(self.sizes, initial=0))]
        self.nbytes = sum(encoded)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """x: [numel] fp32, contiguous; returns [nbytes] uint8."""
        import torch

        from atoll import _core

        wire = torch.empty(self.nbytes, dtype=torch.uint8, device="cpu")
        for codec, (begin, _), part in zip(self.codecs, self._places, self._parts, strict=True):
            layer = x[part]
            if layer.numel():
                _core.encode(codec, layer.data_ptr(), layer.numel(), wire[begin:].data_ptr())
        return wire

    def decode(self, wire: torch.Tensor) -> torch.Tensor:
        """wire: [nbytes] uint8, contiguous; returns [numel] fp32, the same bits everywhere."""
        import torch

        from atoll import _core

        x = torch.empty(sum(self.sizes), device="cpu")
        for codec, (begin, _), part in zip(self.codecs, self._places, self._parts, strict=True):
            layer = x[part]
            if layer.numel():
                _core.decode(codec, wire[begin:].data_ptr(), layer.numel(), layer.data_ptr())
        return x

    def through(self, x: torch.Tensor) -> torch.Tensor:
        """C(x): what others decode of x."""
        return self.decode(self.encode(x))

    def errors(self, x: torch.Tensor) -> torch.Tensor:
        """||layer - C(layer)|| for every layer and candidate: [layers, candidates] float64."""
        import torch

        rows = torch.zeros(len(self.sizes), len(CANDIDATES), dtype=torch.float64, device="cpu")
        for row, part, numel in zip(rows, self._parts, self.sizes, strict=True):
            for place, codec in enumerate(CANDIDATES):
                row[place] = compression_error(x[part], Layered([numel], [codec]).through)
        return rows


def candidate_bytes(sizes: Sequence[int]) -> list[list[int]]:
    """Encoded bytes of every layer in every candidate."""
    from atoll import _core

    return [[_core.encoded_bytes(codec, numel) for codec in CANDIDATES] for numel in sizes]
