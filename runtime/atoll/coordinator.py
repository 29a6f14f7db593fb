"""`python -m atoll.coordinator`: a coordinator in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atoll.config import session_settings
from atoll.control.server import CoordinatorServer
from atoll.control.server_options import ServerOptions
from atoll.errors import ConfigError
from atoll.membership.events import CoordinatorOptions
from atoll.store.locate import FORMS, open_store
from atoll.trust.exposure import check_coordinator

logger = logging.getLogger("atoll.coordinator")

TLS_HELP = "Folder of this coordinator's certificate; callers then need one of the job, too."
INSECURE_HELP = "Listen beyond this machine without certificates, on a network that you trust."
AUTHORITY_HELP = "Folder of the job's authority, to sign joiners' certificates for tokens."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until it is told to stop, by a signal or an operator. Returns the exit status."""
    try:
        return serve(**vars(_parse(arguments)))
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def serve(
    *,
    listen: str,
    advertise: str,
    job: str,
    min_islands: int,
    store: str,
    metrics_port: int | None,
    metrics_host: str,
    tls: Path | None = None,
    authority: Path | None = None,
    insecure: bool = False,
) -> int:
    """What `main` does with its options. Raises ConfigError."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    if min_islands < 1:
        raise ConfigError(f"--min-islands {min_islands}: must be at least 1")
    said = insecure or session_settings({}).insecure
    check_coordinator(listen=listen, advertise=advertise, trusted=tls is not None, insecure=said)
    options = ServerOptions(
        coordinator=CoordinatorOptions(job=job, min_islands=min_islands),
        listen=listen,
        advertise=advertise,
        store=open_store(store, job=job),
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        **trust_options(tls, authority),
    )
    return asyncio.run(_run(options))


def trust_options(tls: Path | None, authority: Path | None) -> dict[str, Any]:
    """`identity`, `authority` and `remembered` of ServerOptions, from their folders. Raises
    ConfigError."""
    from atoll.trust.authority import Authority
    from atoll.trust.identity import Identity
    from atoll.trust.remembered import Remembered

    if authority is not None and tls is None:
        raise ConfigError("--authority goes with --tls: certificates are signed over TLS alone")
    return {
        "identity": None if tls is None else Identity.in_folder(tls),
        "authority": None if authority is None else Authority.load(authority),
        "remembered": None if authority is None else Remembered(authority),
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m atoll.coordinator", description="Runs the coordinator of one job."
    )
    parser.add_argument("--listen", default="127.0.0.1:7000", metavar="HOST:PORT")
    parser.add_argument("--job", default="job", help="name of the job")
    parser.add_argument("--min-islands", type=int, default=1, help="islands that begin the job")
    parser.add_argument(
        "--advertise",
        default="",
        metavar="HOST:PORT",
        help="where peers find this coordinator, when it is not where it listens",
    )
    parser.add_argument(
        "--store",
        default="memory",
        help=f"where the state is kept, so that a restarted coordinator goes on: {FORMS}",
    )
    parser.add_argument("--metrics-port", type=int, help="Prometheus metrics; 0: any port")
    parser.add_argument("--metrics-host", default="127.0.0.1")
    parser.add_argument("--tls", type=Path, metavar="DIR", help=TLS_HELP)
    parser.add_argument("--authority", type=Path, metavar="DIR", help=AUTHORITY_HELP)
    parser.add_argument("--insecure", action="store_true", help=INSECURE_HELP)
    return parser.parse_args(arguments)


async def _run(options: ServerOptions) -> int:
    server = CoordinatorServer(options)
    port = await server.start()
    logger.info("job '%s': listening on port %d", options.coordinator.job, port)
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
    if stopped.done():
        stopped.result()  # raises when the store cannot be used
    stopped.cancel()
    # Where others stand by, the end of one coordinator is not the end of the job.
    await server.stop(why, hand_over=signalled.done() and options.store.shared)
    return 0


if __name__ == "__main__":
    sys.exit(main())
