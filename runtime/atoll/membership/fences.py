"""The fences of one member: those that the coordinator sends, and the one that it puts up unasked.

When somebody has died for certain a fence is sure to follow, and a member freezes without it. What
it says of the death goes out together with its engine's answer, so that the coordinator hears all
of it in one message and need not ask; docs/design.md 3.1. Pure; belongs to the peer's machine.
"""

from __future__ import annotations

from dataclasses import replace

from atoll.membership.messages import UNASKED, ChangeKind, Fence, Fenced, PeerMessage

MOST_S = 0.05
"""An engine answers within a millisecond; what is to be said waits no longer than this."""


class Fences:
    def __init__(self) -> None:
        self._attempt = 0  # the newest that it was fenced for
        self._settled = 0  # of these, the newest that has come to a view here
        self._words: list[PeerMessage] | None = None  # that wait for the answer; None: nothing does
        self._since_s = 0.0
        self._answer: Fenced | None = None  # true until a view comes

    @property
    def settled(self) -> bool:
        """Every fence has come to a view."""
        return self._attempt == self._settled

    def heard(self, fence: Fence) -> bool:
        """Whether it is to be obeyed: nothing would ever end one that has come to its view."""
        self._attempt = max(self._attempt, fence.attempt)
        return fence.attempt > self._settled

    def view_comes(self) -> None:
        """In which the engine goes on."""
        self._settled = self._attempt
        self._answer = None

    def freeze(self, now_s: float) -> None:
        """The engine is told to, unasked."""
        if self._words is None:
            self._words, self._since_s = [], now_s

    def takes(self, message: PeerMessage) -> bool:
        """Whether it keeps this for later."""
        if self._words is None:
            return False
        self._words.append(message)
        return True

    def release(self) -> list[PeerMessage]:
        """What is to be said now."""
        words, self._words = self._words, None
        return words or []

    def answered(self, answer: Fenced) -> None:
        """By the engine. It stays frozen, and its counters what they are."""
        if answer.attempt == UNASKED:
            self._answer = answer

    def answer_to(self, fence: Fence) -> Fenced | None:
        """What the engine would say once more; None: it does not stand still, or not for this."""
        if self._answer is None or fence.kind is not ChangeKind.ABORT or not self.heard(fence):
            return None
        return replace(self._answer, attempt=fence.attempt)

    def late(self, now_s: float) -> list[PeerMessage]:
        """What has waited for long enough."""
        return self.release() if now_s - self._since_s > MOST_S else []
