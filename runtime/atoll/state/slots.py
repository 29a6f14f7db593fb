"""Copies of a state, lent to whoever serves or saves them while the next one is being made.

Thread: the user's; a lease may end on any thread. A slot is used again when nobody reads it any
more, so a donor never copies, and a slow joiner never sees a torn state.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from atoll.state.manifest import Manifest, encode

if TYPE_CHECKING:
    import torch

    from atoll import _core

Slot = tuple["torch.Tensor", ...]
"""The tensors of one copy: uint8, contiguous, on the host."""


class _Lease:
    """Alive while somebody may read the slot; its end returns the slot."""

    __slots__ = ("__weakref__",)


class Slots:
    """The present copy, and those that can be used again."""

    def __init__(self, make: Callable[[], Slot]) -> None:
        """make: a new copy, of arbitrary content."""
        self._make = make
        # Leases end wherever their last reference does, also in the middle of these lines.
        self._lock = threading.RLock()
        self._free: list[Slot] = []
        self._leases: dict[int, int] = {}
        self.now = make()

    def next(self) -> Slot:
        """A slot that nobody reads, of arbitrary content."""
        with self._lock:
            return self._free.pop() if self._free else self._make()

    def advance(self, slot: Slot) -> None:
        """`slot` is the present one from here on."""
        with self._lock:
            before, self.now = self.now, slot
            if before is not slot and not self._leases.get(id(before)):
                self._free.append(before)

    def lend(self) -> object:
        """The present slot stays as it is for as long as what is returned lives."""
        lease = _Lease()
        with self._lock:
            self._leases[id(self.now)] = self._leases.get(id(self.now), 0) + 1
        weakref.finalize(lease, self._returned, self.now)
        return lease

    def publish(self, engine: _core.Engine, manifest: Manifest) -> None:
        """Serves the present slot under the manifest's revision instead of what was served."""
        import torch

        header = torch.frombuffer(bytearray(encode(manifest)), dtype=torch.uint8)
        buffers = [header, *self.now]
        engine.publish(
            manifest.revision,
            [(buffer.data_ptr(), buffer.numel()) for buffer in buffers],
            (self.lend(), buffers),
        )

    def _returned(self, slot: Slot) -> None:
        with self._lock:
            self._leases[id(slot)] -= 1
            if not self._leases[id(slot)]:
                del self._leases[id(slot)]
                if slot is not self.now:
                    self._free.append(slot)
