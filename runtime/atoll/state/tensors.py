"""A state of the user's own that all members hold alike: named tensors and small values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atoll import errors
from atoll.state.manifest import Manifest, bytes_of, describe, digest, encode
from atoll.state.slots import Slot, Slots

if TYPE_CHECKING:
    import torch

    from atoll.membership.messages import PeerId
    from atoll.session import Session


class SharedTensors:
    """Named tensors and small values, for a program that has no method of this package.

    Every op of `channel` makes a new revision of the state, and every member computes the same one:

        state = atoll.SharedTensors(session, {"weights": w}, {"step": 0}, channel=1)
        while state.values["step"] < 1000:
            handle = session.all_reduce(gradients(w), channel=1)
            handle.wait()
            w -= 0.1 * handle.target
            state.advance({"step": state.values["step"] + 1})

    A joiner has the members' tensors and values when the constructor returns; of what it has
    already, only the chunks that differ are sent. Thread: the user's.
    """

    def __init__(
        self,
        session: Session,
        tensors: Mapping[str, torch.Tensor],
        values: Mapping[str, Any] | None = None,
        *,
        channel: int = 0,
    ) -> None:
        """tensors: of any dtype and device; filled with the job's state, or it begins with theirs.
        values: JSON. channel: whose ops change the state.

        Raises MisuseError for values that are not JSON, MismatchError when the job's state has
        other tensors, CannotJoin when the view is not reached in time.
        """
        self.channel = channel
        """Whose ops count its revisions."""
        self.values: dict[str, Any] = dict(values or {})
        """Of the present revision. Do not write to it: `advance` takes the next ones."""
        self.revision = 0
        """Ops of the channel that the state has absorbed."""
        self.digest = ""
        """One hash for everything: equal on all members at the same revision."""
        self._session = session
        self._tensors = dict(tensors)
        shapes = [[name, str(t.dtype), list(t.shape)] for name, t in self._tensors.items()]
        self._identity = digest(json.dumps(shapes).encode())
        self._slots = Slots(self._empty)
        self._receiving: Slot | None = None
        self._copy_in()
        _check(self.values)
        session.share(self)

    def advance(self, values: Mapping[str, Any] | None = None) -> None:
        """The tensors as they are now, and these values (None: as before), are the state after the
        channel's next op. To be called after every op of it, also one that failed."""
        if values is not None:
            _check(values)
            self.values = dict(values)
        self.revision += 1
        self._copy_in()
        self.publish()

    # --- the state's side (atoll.state.sync) ------------------------------------------------------

    def seed(self, revision: int, members: tuple[PeerId, ...]) -> None:
        self.revision = revision

    def present(self) -> list[torch.Tensor]:
        return list(self._slots.now)

    def targets(self, manifest: Manifest) -> list[torch.Tensor]:
        if manifest.values.get("tensors") != self._identity:
            theirs = ", ".join(f"{e.name} ({e.nbytes} bytes)" for e in manifest.tensors)
            raise errors.MismatchError(f"the job's shared state has other tensors: {theirs}")
        if self._receiving is None:
            self._receiving = self._slots.next()
        return list(self._receiving)

    def adopt(self, manifest: Manifest) -> None:
        assert self._receiving is not None  # targets() came first
        self._slots.advance(self._receiving)
        self._receiving = None
        for tensor, data in zip(self._tensors.values(), self._slots.now, strict=True):
            tensor.detach().copy_(data.view(tensor.dtype).view(tensor.shape))
        self.values = dict(manifest.values["values"])
        self.revision = manifest.revision

    def publish(self) -> None:
        entries = zip(self._tensors, self._slots.now, strict=True)
        manifest = Manifest(
            revision=self.revision,
            values={"tensors": self._identity, "values": self.values},
            tensors=tuple(describe(name, bytes_of(data)) for name, data in entries),
        )
        self.digest = digest(encode(manifest))
        self._slots.publish(self._session.engine, manifest)

    # --- within -----------------------------------------------------------------------------------

    def _empty(self) -> Slot:
        import torch

        return tuple(
            torch.empty(t.nbytes, dtype=torch.uint8, device="cpu") for t in self._tensors.values()
        )

    def _copy_in(self) -> None:
        slot = self._slots.next()
        for tensor, data in zip(self._tensors.values(), slot, strict=True):
            data.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
        self._slots.advance(slot)


def _check(values: Mapping[str, Any]) -> None:
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise errors.MisuseError(f"values must be JSON: {error}") from None
