"""Between an accelerator and the host: through pinned memory and a stream of its own.

The training stream only copies inside the accelerator. What goes over the bus does so beside it, so
neither the host nor the next training step waits for it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    Views = Callable[[torch.Tensor], list[torch.Tensor]]


class Lift:
    """Of one fragment. Thread: the user's, but for what `down` returns, which is for any."""

    def __init__(self, numel: int, device: torch.device) -> None:
        import torch

        self._device = device
        self._flat = torch.empty(numel, device=device)
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._went_up: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._last: _Descent | None = None

    def down(
        self, views: Views, parameters: Sequence[torch.Tensor], flat: torch.Tensor
    ) -> Callable[[], bool]:
        """Copies parameters, as they are now, into `flat` on the host (better pinned).

        Returns what waits for it: True for the one caller who is first.
        """
        import torch

        if self._last is not None:
            self._last.wait()  # of a period ago: `_flat` is to be written again
        self._went_up.synchronize()
        now = torch.cuda.current_stream(self._device)
        now.wait_stream(self._stream)
        torch._foreach_copy_(views(self._flat), list(parameters))
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            flat.copy_(self._flat, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
        self._last = _Descent(copied)
        return self._last.first

    def up(self, flat: torch.Tensor) -> torch.Tensor:
        """`flat`, from the host, in the accelerator's memory, for the training stream: until the
        next call. `flat` must not change before the next `down`, which waits for it."""
        import torch

        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            self._flat.copy_(flat, non_blocking=True)
            self._went_up.record(self._stream)
        now.wait_event(self._went_up)
        return self._flat


class _Descent:
    """One copy to the host."""

    def __init__(self, copied: torch.cuda.Event) -> None:
        self._copied = copied
        self._lock = threading.Lock()
        self._taken = False

    def wait(self) -> None:
        self._copied.synchronize()

    def first(self) -> bool:
        with self._lock:
            self._copied.synchronize()
            first, self._taken = not self._taken, True
            return first
