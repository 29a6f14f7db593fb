"""The coordinator of a standalone job, inside the launcher's own process and event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from atoll.config import parse_address
from atoll.control.server import CoordinatorServer, ServerOptions
from atoll.membership.events import CoordinatorOptions
from atoll.store import Store
from atoll.store.memory import MemoryStore
from atoll.store.sqlite import SqliteStore

IN_MEMORY = "memory"
# Islands that shall be found under these addresses are found on this machine.
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedCoordinator:
    """What is asked for. Port 0 is any; `metrics_port` -1 is none."""

    job: str
    listen: str
    min_islands: int
    store: str
    metrics_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What came of it. `metrics_port` 0: none."""

    address: str
    metrics_port: int


@contextlib.asynccontextmanager
async def hosted(wanted: EmbeddedCoordinator) -> AsyncIterator[Running]:
    """Run the coordinator as long as the context lasts. Raises ConfigError when it cannot start."""
    server = CoordinatorServer(
        ServerOptions(
            coordinator=CoordinatorOptions(job=wanted.job, min_islands=wanted.min_islands),
            listen=wanted.listen,
            store=_open_store(wanted.store),
        )
    )
    port = await server.start()
    try:
        metrics_port = 0
        if wanted.metrics_port >= 0:
            metrics_port = server.metrics.serve(wanted.metrics_port, "127.0.0.1")
        host = parse_address(wanted.listen)[0]
        host = ANY_HOST.get(host, host)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        yield Running(address=address, metrics_port=metrics_port)
    finally:
        await server.stop("the launcher that hosts the coordinator has ended")


def _open_store(name: str) -> Store:
    return MemoryStore() if name == IN_MEMORY else SqliteStore(Path(name))
