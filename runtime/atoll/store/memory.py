"""A store that forgets with its process."""

from __future__ import annotations

from atoll.membership.events import Snapshot


class MemoryStore:
    """Keeps the last snapshot as it is: snapshots are values."""

    where = "memory"
    shared = False

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._address = ""

    async def lead(self, address: str) -> Snapshot | None:
        self._address = address
        return self._snapshot

    def lost(self) -> str:
        return ""

    async def save(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def confirm(self) -> None:
        pass

    async def resign(self) -> None:
        pass

    def leader(self) -> str:
        return self._address

    async def close(self) -> None:
        pass
