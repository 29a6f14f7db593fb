"""The coordinator of a standalone job, inside the launcher's own process and event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedCoordinator:
    """What is asked for. `listen` and `metrics_port` may hold port 0, for any."""

    job: str
    listen: str
    min_islands: int
    store: str
    metrics_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What came of it."""

    address: str
    metrics_port: int


@contextlib.asynccontextmanager
async def hosted(wanted: EmbeddedCoordinator) -> AsyncIterator[Running]:
    """Run the coordinator as long as the context lasts."""
    raise NotImplementedError
    yield Running(address="", metrics_port=0)
