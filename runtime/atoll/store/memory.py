"""A store that forgets with its process."""

from __future__ import annotations

from atoll.membership.events import Snapshot


class MemoryStore:
    """Keeps the last snapshot as it is: snapshots are values."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None

    def load(self) -> Snapshot | None:
        return self._snapshot

    def save(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def close(self) -> None:
        pass
