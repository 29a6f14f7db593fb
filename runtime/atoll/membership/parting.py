"""Why a peer leaves, and how long it may take about it. Pure; belongs to the peer's machine."""

from __future__ import annotations

import math

from atoll.errors import Drained
from atoll.membership.messages import Departure

ROUND_PART, LAST_PART = 0.75, 0.9
"""Of the time to leave: for the running round; and until it ends though the others have not agreed.
What is left is for the program."""


class Parting:
    def __init__(self, leave_s: float) -> None:
        """leave_s: how long it goes on once it is to leave."""
        self.reason: Departure | None = None  # it leaves
        self.why = ""  # it is to leave once its round is over
        self._leave_s = max(1.0, leave_s)
        self._told_s = math.inf

    def asked(self, message: str, now_s: float) -> bool:
        """It is to leave once its round is over. Returns whether that is new."""
        new = not self.why
        if new:
            self.why, self._told_s = message or "an operator wants it", now_s
        return new

    def round_over(self, now_s: float) -> bool:
        """Whether it leaves now, whatever its program does."""
        return now_s - self._told_s >= ROUND_PART * self._leave_s and self.reason is None

    def over(self, now_s: float) -> bool:
        return now_s - self._told_s >= LAST_PART * self._leave_s

    def farewell(self) -> Drained:
        why = self.why or "it was asked to"
        return Drained(f"this island has left the job: {why}")
