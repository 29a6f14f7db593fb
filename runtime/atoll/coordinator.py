"""`python -m atoll.coordinator`: a coordinator in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from atoll.control.server import CoordinatorServer, ServerOptions
from atoll.errors import ConfigError
from atoll.membership.events import CoordinatorOptions
from atoll.store import Store
from atoll.store.memory import MemoryStore
from atoll.store.sqlite import SqliteStore

logger = logging.getLogger("atoll.coordinator")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until it is told to stop, by a signal or an operator. Returns the exit status."""
    options = _parse(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        return asyncio.run(_run(options))
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m atoll.coordinator", description="Runs the coordinator of one job."
    )
    parser.add_argument("--listen", default="127.0.0.1:7000", metavar="HOST:PORT")
    parser.add_argument("--job", default="job", help="name of the job")
    parser.add_argument("--min-islands", type=int, default=1, help="islands that begin the job")
    parser.add_argument(
        "--store", type=Path, help="SQLite file, so that a restarted coordinator goes on"
    )
    parser.add_argument("--metrics-port", type=int, help="Prometheus metrics; 0: any port")
    parser.add_argument("--metrics-host", default="127.0.0.1")
    return parser.parse_args(arguments)


async def _run(options: argparse.Namespace) -> int:
    if options.min_islands < 1:
        raise ConfigError(f"--min-islands {options.min_islands}: must be at least 1")
    store: Store = MemoryStore() if options.store is None else SqliteStore(options.store)
    server = CoordinatorServer(
        ServerOptions(
            coordinator=CoordinatorOptions(job=options.job, min_islands=options.min_islands),
            listen=options.listen,
            store=store,
            metrics_port=options.metrics_port,
            metrics_host=options.metrics_host,
        )
    )
    port = await server.start()
    logger.info("job '%s': listening on port %d", options.job, port)
    loop = asyncio.get_running_loop()
    signalled: asyncio.Future[str] = loop.create_future()

    def on_signal(name: str) -> None:
        if not signalled.done():
            signalled.set_result(name)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, signal.Signals(number).name)
    stopped = asyncio.create_task(server.wait_stopped())
    waited: list[asyncio.Future[object]] = [signalled, stopped]  # type: ignore[list-item]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    why = f"the coordinator got {signalled.result()}" if signalled.done() else "stopped"
    stopped.cancel()
    await server.stop(why)
    return 0


if __name__ == "__main__":
    sys.exit(main())
