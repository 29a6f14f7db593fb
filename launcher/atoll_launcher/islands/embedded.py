"""The coordinator of a standalone job, inside the launcher's own process and event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.config import parse_address
from atoll.control.server import CoordinatorServer
from atoll.control.server_options import ServerOptions
from atoll.membership.events import CoordinatorOptions
from atoll.store.locate import open_store
from atoll.trust.exposure import check_coordinator

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
    authority: Path | None = None
    """Folder of the job's authority: then the coordinator asks for certificates."""
    insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What came of it. `metrics_port` 0: none."""

    address: str
    metrics_port: int


def _trust(authority: Path | None) -> dict[str, Any]:
    if authority is None:
        return {}
    from atoll.coordinator import trust_options

    return trust_options(authority / "coordinator", authority)


@contextlib.asynccontextmanager
async def hosted(wanted: EmbeddedCoordinator) -> AsyncIterator[Running]:
    """Run the coordinator as long as the context lasts. Raises ConfigError when it cannot start."""
    check_coordinator(
        listen=wanted.listen,
        advertise="",
        trusted=wanted.authority is not None,
        insecure=wanted.insecure,
    )
    server = CoordinatorServer(
        ServerOptions(
            coordinator=CoordinatorOptions(job=wanted.job, min_islands=wanted.min_islands),
            listen=wanted.listen,
            store=open_store(wanted.store, job=wanted.job),
            **_trust(wanted.authority),
        )
    )
    port = await server.start()
    try:
        metrics_port = 0
        if wanted.metrics_port >= 0:
            metrics_port = server.serve_http(wanted.metrics_port, "127.0.0.1")
        host = parse_address(wanted.listen)[0]
        host = ANY_HOST.get(host, host)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        yield Running(address=address, metrics_port=metrics_port)
    finally:
        await server.stop("the launcher that hosts the coordinator has ended")
