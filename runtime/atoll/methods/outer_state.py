"""What the members share, fragment by fragment, served to joiners while it trains.

Thread: the user's; a slot that nobody else has may be filled by any thread. Every revision of a
fragment lives in a slot of its own; a slot is used again when nobody reads it any more, so a donor
never copies and a slow joiner never sees a torn state.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atoll.errors import MismatchError
from atoll.state.manifest import Manifest, TensorEntry, bytes_of, describe, digest, encode

if TYPE_CHECKING:
    import torch

    from atoll import _core


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """One revision of one fragment: its tensors by kind, fp32, numel elements each.

    `entries`: what a manifest says of them, once it has been computed.
    """

    tensors: dict[str, torch.Tensor]
    entries: tuple[TensorEntry, ...] = field(default=())

    @property
    def theta(self) -> torch.Tensor:
        """The outer parameters."""
        return self.tensors["theta"]

    @property
    def momentum(self) -> torch.Tensor:
        """The outer optimizer's, of methods that have one."""
        return self.tensors["momentum"]


class _Lease:
    """Alive while somebody may read the slots; its end returns them."""

    __slots__ = ("__weakref__",)


class OuterState:
    """The present slots, spare ones, and what is published of them."""

    def __init__(
        self,
        numels: Sequence[int],
        kinds: Sequence[str],
        names: Sequence[str],
        identity: dict[str, Any],
        *,
        pinned: bool = False,
    ) -> None:
        """numels: elements of each fragment. kinds: what a slot holds, `theta` first. names: of the
        parameters. identity: what members must have in common (method, settings), JSON values.
        pinned: in memory from which an accelerator can copy by itself."""
        self._numels, self._kinds = tuple(numels), tuple(kinds)
        self._pinned = pinned
        self._identity = {**identity, "parameters": digest("\n".join(names).encode())}
        # Leases end wherever their last reference does, also in the middle of these lines.
        self._lock = threading.RLock()
        self._free: list[list[Slot]] = [[] for _ in self._numels]
        self._leases: dict[int, int] = {}
        self.now = [self._empty(index) for index in range(len(self._numels))]

    def next(self, fragment: int) -> Slot:
        """A slot that nobody reads, of arbitrary content."""
        with self._lock:
            free = self._free[fragment]
            slot = free.pop() if free else self._empty(fragment)
        slot.entries = ()
        return slot

    def advance(self, fragment: int, slot: Slot) -> None:
        """`slot` is the fragment's present state from here on."""
        with self._lock:
            before, self.now[fragment] = self.now[fragment], slot
            if before is not slot and not self._leases.get(id(before)):
                self._free[fragment].append(before)

    def bytes_of(self, slots: Sequence[Slot]) -> list[torch.Tensor]:
        """The slots' tensors as uint8, in the manifest's order."""
        import torch

        return [slot.tensors[kind].view(torch.uint8) for slot in slots for kind in self._kinds]

    def described(self, fragment: int, slot: Slot) -> tuple[TensorEntry, ...]:
        """What a manifest says of a slot as it is in memory now; hashes all of it."""
        names = [self._name(kind, fragment) for kind in self._kinds]
        data = (bytes_of(tensor) for tensor in self.bytes_of([slot]))
        return tuple(describe(name, each) for name, each in zip(names, data, strict=True))

    def values(self, values: dict[str, Any]) -> dict[str, Any]:
        """These values, and what the state belongs to."""
        return {**values, "identity": self._identity}

    def manifest(self, revision: int, values: dict[str, Any]) -> Manifest:
        """The manifest of the present state; hashes what has not been."""
        for fragment, slot in enumerate(self.now):
            slot.entries = slot.entries or self.described(fragment, slot)
        return Manifest(
            revision=revision,
            values=self.values(values),
            tensors=tuple(entry for slot in self.now for entry in slot.entries),
        )

    def check(self, manifest: Manifest) -> None:
        """Raises MismatchError when the manifest is of another model, method or setting."""
        self.check_identity(manifest.values)
        sizes = [(entry.name, entry.nbytes) for entry in manifest.tensors]
        expected = [
            (self._name(kind, fragment), 4 * numel)
            for fragment, numel in enumerate(self._numels)
            for kind in self._kinds
        ]
        if sizes != expected:
            raise MismatchError(
                f"the job's shared state has other tensors than this model: {sizes}"
            )

    def check_identity(self, values: dict[str, Any]) -> None:
        """Raises MismatchError when a manifest's values are of another model, method or setting."""
        theirs = values.get("identity")
        if not isinstance(theirs, dict):
            raise MismatchError("the job's shared state does not say what it belongs to")
        for key, mine in self._identity.items():
            if theirs.get(key) != mine:
                raise MismatchError(
                    f"this island has {key} = {mine}, the job has {theirs.get(key)}; "
                    "start it with the same model and settings"
                )

    def lend(self) -> object:
        """The present slots stay as they are for as long as what is returned lives. Any thread may
        drop it."""
        lease = _Lease()
        with self._lock:
            lent = list(self.now)
            for slot in lent:
                self._leases[id(slot)] = self._leases.get(id(slot), 0) + 1
        weakref.finalize(lease, self._returned, lent)
        return lease

    def publish(self, engine: _core.Engine, manifest: Manifest) -> None:
        """Serves the present slots under the manifest's revision instead of what was served."""
        import torch

        encoded = encode(manifest)
        lease = self.lend()
        header = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        buffers = [header, *self.bytes_of(self.now)]
        engine.publish(
            manifest.revision,
            [(buffer.data_ptr(), buffer.numel()) for buffer in buffers],
            (lease, buffers),
        )

    @property
    def tensor_names(self) -> list[str]:
        """Of a manifest's tensors, in their order."""
        fragments = range(len(self._numels))
        return [self._name(kind, fragment) for fragment in fragments for kind in self._kinds]

    def _name(self, kind: str, fragment: int) -> str:
        return kind if len(self._numels) == 1 else f"{kind}.{fragment}"

    def _returned(self, slots: list[Slot]) -> None:
        # Also on the control thread, which drains the engine's events.
        with self._lock:
            for fragment, slot in enumerate(slots):
                self._leases[id(slot)] -= 1
                if not self._leases[id(slot)]:
                    del self._leases[id(slot)]
                    if slot is not self.now[fragment]:
                        self._free[fragment].append(slot)

    def _empty(self, fragment: int) -> Slot:
        import torch

        numel = self._numels[fragment]
        return Slot(
            tensors={
                kind: torch.zeros(numel, device="cpu", pin_memory=self._pinned)
                for kind in self._kinds
            }
        )


def state_digest(manifest: Manifest) -> str:
    """One hash for everything that must be equal on all members."""
    return digest(encode(manifest))
