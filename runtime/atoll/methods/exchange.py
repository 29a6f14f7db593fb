"""One exchange, from what an island puts aside to what comes of it. Values.

The user's thread makes and takes them; in between they belong to whoever runs the exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from atoll.membership.messages import PeerId
    from atoll.methods.background import Flight
    from atoll.methods.note import Note
    from atoll.methods.outer_state import Slot


@dataclass(slots=True, kw_only=True, eq=False)
class Staged:
    """What an island put aside for op `index`. weight: of its part in the mean. trained: see Note.

    delta: fp32, numel elements; `ready` returns when it has been filled. anchor: the slot that it
    was taken from, which stays as it is for as long as `ready` lives.
    """

    index: int
    fragment: int
    weight: float
    trained: int
    delta: torch.Tensor
    ready: Callable[[], None]
    anchor: Slot | None = None
    late: bool = False
    buffer: torch.Tensor | None = None
    """What `delta` is the beginning of, if there is room for more behind it."""

    def leave_out(self) -> None:
        """This island takes part in the op, but brings nothing."""
        self.weight, self.trained = 0.0, 0


@dataclass(slots=True, kw_only=True, eq=False)
class Exchanged:
    """What came of an op. members, notes, weights: by rank of the view in which it committed.

    slot: the fragment's next state; None: it stays as it is. refused: this island's part was left
    out because it was not finite. sound: this island's state is what it was published as.
    """

    epoch: int
    members: tuple[PeerId, ...]
    notes: list[Note]
    weights: Sequence[float]
    slot: Slot | None = None
    refused: bool = False
    sound: bool = True
    extra: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 0
    """Samples of a batch from the next round on; 0: as before."""


@dataclass(slots=True, kw_only=True, eq=False)
class Under:
    """An op under way. closing: what is reported when it ends the round."""

    staged: Staged
    flight: Flight[Exchanged]
    loss: torch.Tensor | float
