"""Where the coordinator keeps what it must not forget."""

from __future__ import annotations

from typing import Protocol

from atoll.membership.events import Snapshot


class Store(Protocol):
    """Thread: the coordinator's alone."""

    def load(self) -> Snapshot | None:
        """What was saved last, or None. Raises ConfigError when it cannot be read."""

    def save(self, snapshot: Snapshot) -> None:
        """Durable when it returns, all of it or nothing."""

    def close(self) -> None: ...


__all__ = ["Store"]
