"""What an island remembers of what it could not say: EF, EF21 or EControl around any compressor.

`error_feedback` has the rules (arXiv 2311.05645). A message counts as said only once it has been
`delivered`; an exchange that failed leaves everything as it was.

Thread: whichever runs the exchange; one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atoll.methods.error_feedback import econtrol_step, ef21_step, ef_step

if TYPE_CHECKING:
    import torch

    from atoll.methods.error_feedback import Compressor

Kind = Literal["ef", "ef21", "econtrol"]
KINDS = ("ef", "ef21", "econtrol")
WITH_MEAN = ("ef21", "econtrol")
"""Their step is along the mean of h, of which all members keep a copy."""


class Feedback:
    """One island's e and h, [numel] fp32 each, 0 at the beginning. kind None: neither."""

    def __init__(self, kind: Kind | None, numel: int, *, eta: float) -> None:
        """eta: of EControl, what the residual counts inside C."""
        import torch

        self._kind, self._eta = kind, eta
        self.e = torch.zeros(numel if kind in ("ef", "econtrol") else 0, device="cpu")
        self.h = torch.zeros(numel if kind in WITH_MEAN else 0, device="cpu")
        self._next = (self.e, self.h)

    def message(self, delta: torch.Tensor, compress: Compressor) -> torch.Tensor:
        """What is sent of Delta, decoded. `delivered` comes next, if it was."""
        match self._kind:
            case "ef":
                sent, e = ef_step(self.e, delta, compress)
                self._next = (e, self.h)
            case "ef21":
                sent, h = ef21_step(self.h, delta, compress)
                self._next = (self.e, h)
            case "econtrol":
                sent, e, h = econtrol_step(self.e, self.h, delta, compress, eta=self._eta)
                self._next = (e, h)
            case None:
                sent = compress(delta)
        return sent

    def delivered(self) -> None:
        """The last message is in a mean that was accepted."""
        self.e, self.h = self._next

    def forget(self) -> None:
        """h is 0 from here on, as on all members. e stays: it was never said."""
        self.h = self.h.new_zeros(self.h.shape)
        self._next = (self.e, self.h)
