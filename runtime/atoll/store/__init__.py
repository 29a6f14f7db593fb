"""Where the coordinator keeps what it must not forget, and who may write there.

One process leads: it alone may write. In memory and in a SQLite file that is whoever opened the
store; in etcd it is whoever holds the leadership key, and everything else stands by.
"""

from __future__ import annotations

from typing import Protocol

from atoll.membership.events import Snapshot


class StoreUnavailable(Exception):
    """What was to be written may be in the store or not. Whoever led stops deciding, and begins
    again from what the store says: like a crash, only cheaper."""


class Deposed(StoreUnavailable):
    """The leadership is lost; another process may have it."""


class Store(Protocol):
    """Thread: the coordinator's alone, and its loop."""

    where: str
    """For people: `memory`, `sqlite:PATH`, `etcd://...`."""
    shared: bool
    """Whether several coordinators of the job may have it open, all but one standing by."""

    async def lead(self, address: str) -> Snapshot | None:
        """Waits until this process alone may write; returns what was saved last, or None.

        `address`: where peers find this coordinator, for the others to tell. Raises
        StoreUnavailable when the store does not answer, ConfigError when it cannot be read.
        """

    def lost(self) -> str:
        """Why what `lead` gave is not certain any more; empty as long as it is. Asked before every
        decision; costs nothing."""

    async def save(self, snapshot: Snapshot) -> None:
        """Durable when it returns, all of it or nothing. Raises StoreUnavailable, or Deposed when
        this process does not lead any more: then nothing was written."""

    async def confirm(self) -> None:
        """Asks the store itself whether this process leads. Raises as `save` does."""

    async def resign(self) -> None:
        """Gives the leadership up, so that another one need not wait for it. Never raises."""

    def leader(self) -> str:
        """The address of who leads, as far as is known; empty when it is not."""

    async def close(self) -> None:
        """Resigns and lets go of everything. Idempotent."""


__all__ = ["Deposed", "Store", "StoreUnavailable"]
