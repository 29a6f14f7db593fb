"""What a session knows of its program's work: the training method, and how far it has come."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from atoll.checkpoint.keeper import Saved
from atoll.data.batches import RoundMethod
from atoll.state.sync import SharedState


class Method(RoundMethod, SharedState, Saved, Protocol):
    """A training method: rounds for the data, state for joiners and checkpoints."""


@dataclass(slots=True)
class Progress:
    """What this island has done so far."""

    tokens: int = 0
    began_s: float = 0.0
    fence_s: float = 0.0
    """How long the last change of the view let no further op start here."""
    _ended_s: float = 0.0

    def take_round_s(self) -> float:
        """Seconds since the last call; at first, since this island began to train."""
        before = max(self._ended_s, self.began_s)
        self._ended_s = time.monotonic()
        return self._ended_s - before
