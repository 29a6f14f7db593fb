"""The side of a method that others see: its state for joiners, checkpoints and `state_dict()`.

Thread: the user's. `revision` counts the channel's ops that the state has absorbed; `index` counts
those of the method's own schedule, which a checkpoint continues on another channel's count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from atoll import errors
from atoll.data import ledger as ledgers
from atoll.methods.outer_state import OuterState, Slot, state_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from atoll.checkpoint.read import Targets
    from atoll.checkpoint.write import Snapshot
    from atoll.membership.messages import PeerId
    from atoll.methods.layout import Layout
    from atoll.session import Session
    from atoll.state.manifest import Manifest

_GROUPS = {"theta": "parameters"}
"""A checkpoint's names of what a slot holds; others are called the same."""


class SharedOuter:
    """Outer state, round and data position of a method, published under their revision."""

    counts = "round"  # what `round` counts, in checkpoints' messages

    def __init__(
        self,
        session: Session,
        layout: Layout,
        *,
        channel: int,
        kinds: Sequence[str],
        identity: dict[str, Any],
        lead: bool,
    ) -> None:
        """kinds: what is shared of a fragment, theta first. identity: what members must have in
        common. lead: whether data shares are given out a round ahead."""
        self.channel = channel
        self.round = 0
        self.line = ""
        self._session = session
        self._layout = layout
        self._kinds = tuple(kinds)
        self._state = OuterState(
            [fragment.numel for fragment in layout.fragments],
            kinds,
            layout.names,
            identity,
            pinned=not layout.on_host,
        )
        for fragment, slot in zip(layout.fragments, self._state.now, strict=True):
            fragment.gather(slot.theta)
        self._ledger = ledgers.Ledger(lead=lead)
        self._revision = self._index = 0
        self._digest = ""
        self._receiving: list[Slot] | None = None

    # --- what people use --------------------------------------------------------------------------

    def outer_parameters(self) -> torch.Tensor:
        """The shared parameters, flat fp32, [numel]. Do not write to it.

        Of a method with several fragments: a copy, fragment after fragment.
        """
        import torch

        if len(self._state.now) == 1:
            return self._state.now[0].theta
        return torch.cat([slot.theta for slot in self._state.now])

    def named_outer_parameters(self) -> dict[str, torch.Tensor]:
        """The shared parameters by name, in their shapes, on the host. Do not write to them."""
        return self._named("theta", self._state.now)

    @contextlib.contextmanager
    def shared_weights(self) -> Iterator[None]:
        """Within, the model holds the shared parameters, to be evaluated or saved; then its own.

        Do not train within. Costs a copy of the model on the host.
        """
        import torch

        own = [torch.empty(fragment.numel, device="cpu") for fragment in self._layout.fragments]
        for fragment, flat in zip(self._layout.fragments, own, strict=True):
            fragment.gather(flat)
        self._theta_into_model()
        try:
            yield
        finally:
            for fragment, flat in zip(self._layout.fragments, own, strict=True):
                fragment.scatter(flat)

    def state_dict(self) -> dict[str, Any]:
        """What a joiner would receive: outer parameters, the outer optimizer's state, round and
        data position."""
        held = zip(self._tensor_names(), self._tensors(self._state.now), strict=True)
        return {name: tensor.clone() for name, tensor in held} | self._values()

    @property
    def ledger(self) -> ledgers.Ledger:
        """Who trains on which samples."""
        return self._ledger

    # --- the state's side (atoll.state.sync) ------------------------------------------------------

    def seed(self, revision: int, members: tuple[PeerId, ...]) -> None:
        self._revision = revision
        self._ledger = ledgers.reassigned(self._ledger, members)

    def present(self) -> list[torch.Tensor]:
        return self._state.bytes_of(self._state.now)

    def targets(self, manifest: Manifest) -> list[torch.Tensor]:
        self._state.check(manifest)
        return self._state.bytes_of(self._empty_slots())

    def adopt(self, manifest: Manifest) -> None:
        self._take_position(manifest.values)
        self._revision = manifest.revision
        self._received()

    def publish(self) -> None:
        """Serves the present state to joiners, and to members that must be healed."""
        manifest = self._state.manifest(self._revision, self._values())
        self._state.publish(self._session.engine, manifest)
        self._digest = state_digest(manifest)

    # --- the checkpoints' side (atoll.checkpoint) -------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The shared tensors by the parameters' names, round and data position."""
        from atoll.checkpoint.write import Snapshot

        return Snapshot(
            round=self.round,
            revision=self._revision,
            values=self._state.values(self._values()),
            groups=self._groups(self._state.now),
            lease=self._state.lend(),
            pieces=self._layout.pieces,
        )

    def restoring(self, values: dict[str, Any]) -> Targets:
        self._state.check_identity(values)
        self._position(values)
        return self._groups(self._empty_slots())

    def restored(self, values: dict[str, Any]) -> None:
        """The targets are filled: this is the state now. `seed` comes next."""
        self._take_position(values)
        self._received()

    # --- within -----------------------------------------------------------------------------------

    def _values(self) -> dict[str, Any]:
        """What is shared besides tensors: JSON values."""
        found = {
            "round": self.round,
            "index": self._index,
            "ledger": ledgers.to_json(self._ledger),
        }
        return found | ({"line": self.line} if self.line else {})

    def _position(self, values: Mapping[str, Any]) -> tuple[ledgers.Ledger, int, int]:
        """Ledger, round and index of shared values. Raises MismatchError."""
        try:
            round_ = int(values["round"])
            return ledgers.from_json(values["ledger"]), round_, int(values.get("index", round_))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise errors.MismatchError(
                f"the job's shared state is not {type(self).__name__}'s: {error!r}"
            ) from None

    def _take_position(self, values: Mapping[str, Any]) -> None:
        self._ledger, self.round, self._index = self._position(values)
        self.line = str(values.get("line", ""))

    def _empty_slots(self) -> list[Slot]:
        if self._receiving is None:
            self._receiving = [self._state.next(index) for index in range(len(self._state.now))]
        return self._receiving

    def _received(self) -> None:
        """What was received is the present state."""
        assert self._receiving is not None  # targets() or restoring() came first
        for fragment, slot in enumerate(self._receiving):
            self._state.advance(fragment, slot)
        self._receiving = None
        self._theta_into_model()

    def _theta_into_model(self) -> None:
        for fragment, slot in zip(self._layout.fragments, self._state.now, strict=True):
            fragment.scatter(slot.theta)

    def _named(self, kind: str, slots: Sequence[Slot]) -> dict[str, torch.Tensor]:
        named: dict[str, torch.Tensor] = {}
        for fragment, slot in zip(self._layout.fragments, slots, strict=True):
            named |= fragment.named(slot.tensors[kind])
        return named

    def _groups(self, slots: Sequence[Slot]) -> dict[str, dict[str, torch.Tensor]]:
        return {_GROUPS.get(kind, kind): self._named(kind, slots) for kind in self._kinds}

    def _tensor_names(self) -> list[str]:
        return self._state.tensor_names

    def _tensors(self, slots: Sequence[Slot]) -> list[torch.Tensor]:
        return [slot.tensors[kind] for slot in slots for kind in self._kinds]

    def _begin_from(self, earlier: Mapping[str, Any]) -> None:
        """Holds an earlier state of the job. Raises MisuseError when it is of another model."""
        mine = zip(self._tensor_names(), self._tensors(self._state.now), strict=True)
        try:
            for name, tensor in mine:
                if earlier[name].shape != tensor.shape:
                    raise ValueError(f"{name} has {earlier[name].numel()} elements")
                tensor.copy_(earlier[name])
            self._take_position(earlier)
        except (KeyError, ValueError, AttributeError, errors.MismatchError) as error:
            raise errors.MisuseError(
                f"earlier is not what state_dict() gave for this model: {error}"
            ) from None
        self._theta_into_model()
