"""A coordinator in a thread of this process, and clients with real engines."""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Callable
from typing import Any

from atoll import _core
from atoll.control.client import ControlClient
from atoll.control.server import CoordinatorServer
from atoll.control.server_options import ServerOptions
from atoll.membership.events import CoordinatorOptions
from atoll.membership.messages import Departure
from atoll.trust.identity import Identity

TIMEOUT_S = 20.0


class Coordinator:
    """Use as a context manager; `port` is where it listens."""

    def __init__(
        self, *, listen: str = "127.0.0.1:0", identity: Identity | None = None, **options: Any
    ) -> None:
        self.server: CoordinatorServer
        self.port = 0
        self._listen, self._options, self._identity = listen, options, identity
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        options = CoordinatorOptions(job="reef", **self._options)
        self.server = CoordinatorServer(
            ServerOptions(
                coordinator=options,
                listen=self._listen,
                metrics_port=0,
                identity=self._identity,
            )
        )
        self.port = await self.server.start()
        self._ready.set()
        await self._end.wait()
        await self.server.stop("the test is over")

    def __enter__(self) -> Coordinator:
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def ask(self, question: Callable[[CoordinatorServer], Any]) -> Any:
        """Asked in the coordinator's own thread."""

        async def answer() -> Any:
            return question(self.server)

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(TIMEOUT_S)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.ask(lambda server: server.machine.events(0))]


def engine(peer: bytes, secret: bytes) -> Any:
    return _core.Engine(peer=peer, secret=secret)


def client(port: int, island: str, **changes: Any) -> ControlClient:
    arguments: dict[str, Any] = {
        "coordinator": f"127.0.0.1:{port}",
        "job": "reef",
        "island": island,
        "engine_factory": engine,
        "on_op_ended": lambda op: None,
        "software_version": "test",
        "connect_timeout_s": TIMEOUT_S,
    }
    return ControlClient(**{**arguments, **changes})


def join(port: int, names: str) -> list[ControlClient]:
    """Clients that are all members of one view and hold its state."""
    clients = [client(port, name) for name in names]
    for each in clients:
        each.start()
        each.ready()
    for each in clients:
        each.wait(lambda now: len(now.view.members) == len(names), TIMEOUT_S)
        each.holding()
    return clients


def barrier(clients: list[ControlClient], channel: int = 0) -> list[str]:
    """All of them run one barrier; returns how it ended for each."""
    ops = [each.engine.barrier(channel) for each in clients]
    outcomes = []
    for each, op in zip(clients, ops, strict=True):
        outcome = each.engine.wait(op, int(TIMEOUT_S * 1e9))
        outcomes.append(outcome.code if outcome is not None else "hangs")
        each.engine.release(op)
    return outcomes


def close(clients: list[ControlClient]) -> None:
    for each in clients:
        each.leave(Departure.FINISHED, TIMEOUT_S)
        each.close()
        each.engine.close()


def readable(stream: Any) -> list[Any]:
    """`stream` if it has something to read now, or is at its end."""
    return select.select([stream], [], [], 0.0)[0]
