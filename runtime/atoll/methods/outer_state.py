"""The outer parameters and momentum of a dense method, served to joiners while it trains.

Thread: the user's. Every revision lives in a slot of its own; a slot is used again when nobody
reads it any more, so a donor never copies and a slow joiner never sees a torn state.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atoll.errors import MismatchError
from atoll.state.manifest import Manifest, bytes_of, describe, digest, encode

if TYPE_CHECKING:
    import torch

    from atoll import _core


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """theta and momentum: fp32, numel elements each."""

    theta: torch.Tensor
    momentum: torch.Tensor


class _Lease:
    """Alive while the engine may read the slot; its end returns the slot."""

    __slots__ = ("__weakref__",)


class OuterState:
    """The present slot, the next one, and what is published of them."""

    def __init__(self, numel: int, names: list[str], identity: dict[str, Any]) -> None:
        """`identity`: what members must have in common (method, settings), JSON values."""
        self._numel = numel
        self._identity = {**identity, "parameters": digest("\n".join(names).encode())}
        # Leases end wherever their last reference does, also in the middle of these lines.
        self._lock = threading.RLock()
        self._free: list[Slot] = []
        self._leases: dict[int, int] = {}
        self.now = self._empty()

    def next(self) -> Slot:
        """A slot that nobody reads, of arbitrary content."""
        with self._lock:
            return self._free.pop() if self._free else self._empty()

    def advance(self, slot: Slot) -> None:
        """`slot` is the present state from here on."""
        with self._lock:
            before, self.now = self.now, slot
            if not self._leases.get(id(before)):
                self._free.append(before)

    def bytes_of(self, slot: Slot) -> list[torch.Tensor]:
        """The slot's tensors as uint8, in the manifest's order."""
        import torch

        return [slot.theta.view(torch.uint8), slot.momentum.view(torch.uint8)]

    def manifest(self, revision: int, values: dict[str, Any]) -> Manifest:
        """The manifest of the present state; hashes all of it."""
        theta, momentum = self.bytes_of(self.now)
        return Manifest(
            revision=revision,
            values={**values, "identity": self._identity},
            tensors=(
                describe("theta", bytes_of(theta)),
                describe("momentum", bytes_of(momentum)),
            ),
        )

    def check(self, manifest: Manifest) -> None:
        """Raises MismatchError when the manifest is of another model, method or setting."""
        theirs = manifest.values.get("identity")
        if not isinstance(theirs, dict):
            raise MismatchError("the job's shared state does not say what it belongs to")
        for key, mine in self._identity.items():
            if theirs.get(key) != mine:
                raise MismatchError(
                    f"this island has {key} = {mine}, the job has {theirs.get(key)}; "
                    "start it with the same model and settings"
                )
        sizes = [(entry.name, entry.nbytes) for entry in manifest.tensors]
        if sizes != [("theta", 4 * self._numel), ("momentum", 4 * self._numel)]:
            raise MismatchError(
                f"the job's shared state has other tensors than this model: {sizes}"
            )

    def publish(self, engine: _core.Engine, manifest: Manifest) -> None:
        """Serves the present slot under the manifest's revision instead of what was served."""
        import torch

        encoded = encode(manifest)
        lease = _Lease()
        header = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        buffers = [header, *self.bytes_of(self.now)]
        with self._lock:
            self._leases[id(self.now)] = self._leases.get(id(self.now), 0) + 1
        weakref.finalize(lease, self._returned, self.now)
        engine.publish(
            manifest.revision,
            [(buffer.data_ptr(), buffer.numel()) for buffer in buffers],
            (lease, buffers),
        )

    def _returned(self, slot: Slot) -> None:
        # Also on the control thread, which drains the engine's events.
        with self._lock:
            self._leases[id(slot)] -= 1
            if not self._leases[id(slot)] and slot is not self.now:
                del self._leases[id(slot)]
                self._free.append(slot)

    def _empty(self) -> Slot:
        import torch

        return Slot(theta=torch.zeros(self._numel), momentum=torch.zeros(self._numel))


def state_digest(manifest: Manifest) -> str:
    """One hash for everything that must be equal on all members."""
    return digest(encode(manifest))
