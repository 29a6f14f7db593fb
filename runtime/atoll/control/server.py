"""The coordinator's gRPC shell: streams in, the machine in the middle, streams out.

Thread: one asyncio loop, its caller's. Nothing here waits for a peer: what cannot be sent is kept
in a bounded queue, and a peer whose queue is full loses its stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, assert_never

import grpc
from google.protobuf.message import DecodeError

from atoll.config import parse_address
from atoll.control.channel import SERVER_OPTIONS, SERVICE
from atoll.control.convert import (
    MalformedMessage,
    coordinator_message_to_pb,
    job_event_to_pb,
    peer_message_from_pb,
    status_to_pb,
)
from atoll.control.coordinator_metrics import CoordinatorMetrics
from atoll.errors import ConfigError
from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import (
    Close,
    CoordinatorEvent,
    CoordinatorOptions,
    Persist,
    Received,
    Send,
    StopRequested,
    StreamLost,
    Tell,
    Tick,
)
from atoll.membership.messages import CoordinatorMessage, PeerMessage
from atoll.pb import control_pb2 as pb
from atoll.store import Store
from atoll.store.memory import MemoryStore

logger = logging.getLogger(__name__)

TICK_S = 0.05
QUEUED_MESSAGES = 1024
"""For one peer. At one change of view a second, each with a list of peers: minutes."""
FLUSH_S = 2.0
"""How long a last word may take to reach a peer whose stream is being closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where to listen, and the job. metrics_port: 0 is any; None is no metrics over HTTP."""

    coordinator: CoordinatorOptions
    listen: str = "127.0.0.1:0"
    store: Store = field(default_factory=MemoryStore)
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


class _Stream:
    """One peer's connection, and what waits to be sent on it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_MESSAGES)
        self.stuck = asyncio.Event()

    def put(self, item: bytes | None) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.stuck.set()


class CoordinatorServer:
    """A coordinator that can live in anybody's loop: `port = await server.start()`, `stop()`."""

    def __init__(self, options: ServerOptions) -> None:
        """Raises ConfigError when the store cannot be read or belongs to another job."""
        self._options = options
        snapshot = options.store.load()
        if snapshot is not None and snapshot.job != options.coordinator.job:
            raise ConfigError(
                f"the store belongs to job '{snapshot.job}', not '{options.coordinator.job}'; "
                "name another store or the same job"
            )
        self._machine = CoordinatorMachine(
            options.coordinator, secret=secrets.token_bytes(32), snapshot=snapshot
        )
        self.metrics = CoordinatorMetrics(options.coordinator.job)
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)
        self._news = asyncio.Event()
        self._stopping = False
        self._empty = asyncio.Event()
        self._began_s = time.monotonic()
        self._unix_minus_machine_s = time.time() - self._began_s
        self._server: Any = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def machine(self) -> CoordinatorMachine:
        """For questions; only this server may feed it."""
        return self._machine

    async def start(self) -> int:
        """Listens and returns the port. Raises ConfigError when the address cannot be used."""
        try:
            host, port = parse_address(self._options.listen)
        except ValueError as error:
            raise ConfigError(f"listen address {self._options.listen!r}: {error}") from None
        if self._options.metrics_port is not None:
            self.metrics.serve(self._options.metrics_port, self._options.metrics_host)
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((self._handlers(),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = server.add_insecure_port(address)
        except RuntimeError:
            bound = 0
        if not bound:
            self.metrics.close()
            raise ConfigError(f"cannot listen on {address}: in use, or not this machine's")
        await server.start()
        self._server = server
        self._drive(Tick())
        self._ticker = asyncio.create_task(self._tick(), name="atoll-coordinator-tick")
        return bound

    async def stop(self, message: str = "the coordinator stops") -> None:
        """Asks every peer to leave, and ends. Bounded by a few seconds; idempotent."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self._drive(StopRequested(message=message))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._empty.wait()
        self._stopping = True
        self._news.set()
        await server.stop(grace=0.2)
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        self.metrics.close()
        self._options.store.close()

    async def wait_stopped(self) -> None:
        """Returns when an operator has stopped the job and all peers have gone."""
        await self._empty.wait()

    # --- around the machine -----------------------------------------------------------------------

    def _drive(self, event: CoordinatorEvent) -> None:
        for action in self._machine.handle(event, time.monotonic()):
            match action:
                case Send(stream=number, message=message):
                    self._send(number, message)
                case Close(stream=number):
                    self._close(number)
                case Persist(snapshot=snapshot):
                    self._options.store.save(snapshot)
                case Tell(event=job_event):
                    logger.info("%s", job_event.message)
                    self.metrics.observe_event(job_event)
                    self._news.set()
                    self._news = asyncio.Event()
                case _:
                    assert_never(action)
        if self._machine.stopping and not self._streams:
            self._empty.set()

    def _send(self, number: int, message: CoordinatorMessage) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.put(coordinator_message_to_pb(message).SerializeToString())

    def _close(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.put(None)
            asyncio.get_running_loop().call_later(FLUSH_S, stream.stuck.set)

    async def _tick(self) -> None:
        while True:
            self._drive(Tick())
            self.metrics.observe(self._machine.status(time.monotonic()), len(self._streams))
            await asyncio.sleep(TICK_S)

    # --- calls ------------------------------------------------------------------------------------

    def _handlers(self) -> Any:
        # Attach parses its messages itself, so that garbage has a name and a count.
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Attach": grpc.stream_stream_rpc_method_handler(self._attach),
                "Status": grpc.unary_unary_rpc_method_handler(
                    self._status,
                    request_deserializer=pb.StatusRequest.FromString,
                    response_serializer=pb.StatusReply.SerializeToString,
                ),
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self._watch,
                    request_deserializer=pb.WatchRequest.FromString,
                    response_serializer=pb.JobEvent.SerializeToString,
                ),
                "Stop": grpc.unary_unary_rpc_method_handler(
                    self._stop,
                    request_deserializer=pb.StopRequest.FromString,
                    response_serializer=pb.StopReply.SerializeToString,
                ),
            },
        )

    async def _attach(self, _requests: Any, context: Any) -> None:
        stream = _Stream(next(self._numbers))
        self._streams[stream.number] = stream
        tasks = [
            asyncio.create_task(self._read(stream, context)),
            asyncio.create_task(_write(stream, context)),
            asyncio.create_task(stream.stuck.wait()),
        ]
        problem: MalformedMessage | None = None
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0] in done and isinstance(tasks[0].exception(), MalformedMessage):
                problem = tasks[0].exception()  # type: ignore[assignment]
            elif tasks[2] in done:
                logger.warning("a peer took nothing for too long; its stream is ended")
        finally:
            # Before anything is awaited: gRPC may cancel this call right here, and a loss that the
            # machine never hears of makes it believe a dead peer rather than a living one.
            self._streams.pop(stream.number, None)
            self._drive(StreamLost(stream=stream.number))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if problem is not None:
            self.metrics.malformed.inc()
            logger.warning("stream %d: %s", stream.number, problem)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))

    async def _read(self, stream: _Stream, context: Any) -> None:
        while True:
            data = await context.read()
            if not isinstance(data, bytes):  # EOF
                return
            self._drive(Received(stream=stream.number, message=_parse(data)))

    async def _status(self, _request: pb.StatusRequest, _context: Any) -> pb.StatusReply:
        now_s = time.monotonic()
        return status_to_pb(self._machine.status(now_s), now_s - self._began_s)

    async def _watch(self, request: pb.WatchRequest, _context: Any) -> AsyncIterator[pb.JobEvent]:
        after = request.after
        while not self._stopping:
            news = self._news
            for event in self._machine.events(after):
                yield job_event_to_pb(event, self._unix_minus_machine_s)
                after = event.number
            await news.wait()

    async def _stop(self, request: pb.StopRequest, _context: Any) -> pb.StopReply:
        self._drive(StopRequested(message=request.message))
        return pb.StopReply()


def _parse(data: bytes) -> PeerMessage:
    try:
        return peer_message_from_pb(pb.PeerMessage.FromString(data))
    except DecodeError:
        raise MalformedMessage("not a message of this protocol") from None


async def _write(stream: _Stream, context: Any) -> None:
    while True:
        item = await stream.queue.get()
        if item is None:
            return
        await context.write(item)
