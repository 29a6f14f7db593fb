"""Error feedback around a codec: what an island could not say now, it says next time.

Plain EF (arXiv 2311.05645, `error_feedback.ef_step`): m = C(e + Delta); e <- e + Delta - m. C is
the collective's codec, applied to weight * x as the collective does, in the same blocks.

Thread: whichever runs the exchange; one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.methods.error_feedback import ef_step

if TYPE_CHECKING:
    import torch


class Residual:
    """One fragment's e, [numel]; an island's own, 0 at the beginning."""

    def __init__(self, numel: int, codec: str) -> None:
        import torch

        self.e = torch.zeros(numel, device="cpu")
        self._codec = codec
        self._left: torch.Tensor | None = None

    def fed(self, delta: torch.Tensor, weight: float) -> torch.Tensor:
        """m, what is sent instead of Delta: what the codec makes of e + Delta. The collective's
        encoder leaves that as it is with fp4, nearly with int8, and within some percent of the
        largest number with two_bit. `delivered` comes next, if it was.
        """
        message, self._left = ef_step(self.e, delta, lambda x: self._through(x, weight))
        return message

    def delivered(self) -> None:
        """The exchange has committed with the message in it."""
        assert self._left is not None  # fed() came first
        self.e, self._left = self._left, None

    def _through(self, x: torch.Tensor, weight: float) -> torch.Tensor:
        import torch

        from atoll import _core

        scaled = (x * weight).contiguous()
        count = scaled.numel()
        wire = torch.empty(_core.encoded_bytes(self._codec, count), dtype=torch.uint8, device="cpu")
        _core.encode(self._codec, scaled.data_ptr(), count, wire.data_ptr())
        _core.decode(self._codec, wire.data_ptr(), count, scaled.data_ptr())
        return scaled.div_(weight)
