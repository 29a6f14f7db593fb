"""Which of several coordinators a peer asks next. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class Route:
    """The addresses that the peer was given, in turn; but first the one that it was told of."""

    def __init__(self, coordinators: Sequence[str]) -> None:
        """`coordinators`: at least one."""
        self._coordinators = tuple(coordinators)
        self._position = 0
        self._told = ""

    @property
    def several(self) -> bool:
        return len(self._coordinators) > 1

    @property
    def current(self) -> str:
        """Whom to ask now."""
        return self._told or self._coordinators[self._position]

    def failed(self, told: str = "") -> str:
        """The current one is not the leader, or does not answer. Returns whom to ask next: the one
        that it `told` of, if it did. Who was told of and fails is not asked again in his turn."""
        if told and told == self.current:
            told = ""  # it tells of itself: it knows no better
        if not self._told:
            self._position = (self._position + 1) % len(self._coordinators)
        self._told = told
        return self.current
