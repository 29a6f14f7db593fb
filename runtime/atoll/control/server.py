"""The coordinator's gRPC shell: streams in, the machine in the middle, streams out.

Thread: one asyncio loop, its caller's. Nothing here waits for a peer: what cannot be sent is kept
in a bounded queue, and a peer whose queue is full loses its stream. While this coordinator does not
lead (the store says so), it has no machine, and tells everybody who asks where the leader is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, assert_never

import grpc

from atoll.config import parse_address
from atoll.control.attached import Attached, parse, write
from atoll.control.channel import SERVER_OPTIONS, SERVICE, ended_calls
from atoll.control.convert import coordinator_message_to_pb
from atoll.control.convert_status import job_event_to_pb, status_to_pb
from atoll.control.coordinator_metrics import CoordinatorMetrics
from atoll.control.diagnosis import Diagnosis
from atoll.control.differences import Encoder
from atoll.control.fields import MalformedMessage
from atoll.control.leading import Leading
from atoll.control.operators import Operators
from atoll.control.server_options import ServerOptions
from atoll.control.term import Term, Visible
from atoll.control.trust_calls import Trust
from atoll.errors import ConfigError
from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import (
    Close,
    Received,
    Send,
    StopRequested,
    StreamLost,
    Tell,
)
from atoll.membership.messages import (
    CoordinatorMessage,
    NotLeader,
    Refused,
    Register,
)
from atoll.pb import control_pb2 as pb
from atoll.trust.exposure import is_loopback
from atoll.trust.names import Role
from atoll.watching.board import Board
from atoll.watching.site import coordinator_site

logger = logging.getLogger(__name__)

OBSERVE_S = 0.1
FLUSH_S = 2.0
"""How long a last word may take to reach a peer whose stream is being closed."""


class CoordinatorServer:
    """A coordinator that can live in anybody's loop: `port = await server.start()`, `stop()`."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._store = options.store
        self._leading = Leading(
            options.coordinator,
            options.store,
            act=self._act,
            after=self._after,
            began=self._begin_term,
            ended=self._turn_all_away,
        )
        self._address = ""
        self.metrics = CoordinatorMetrics(options.coordinator.job)
        self._board = Board(options.coordinator.job)
        self.site = coordinator_site(self._board, self.metrics.registry, options.identity)
        self._trust = Trust(
            job=options.coordinator.job,
            identity=options.identity,
            authority=options.authority,
            remembered=options.remembered,
            term=lambda: self._term,
            leading=self._term_or_abort,
            on_refused=self.metrics.refused,
        )
        self._operators = Operators(self._trust, self._term_or_abort)
        self._diagnosis = Diagnosis(self._trust, self._term_or_abort)
        self._streams: dict[int, Attached] = {}
        self._numbers = itertools.count(1)
        self._encoder = Encoder()
        self._news = asyncio.Event()
        self._told = False
        self._stopping = False
        self._empty = asyncio.Event()
        self._began_s = time.monotonic()
        self._unix_minus_machine_s = time.time() - self._began_s
        self._server: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def _term(self) -> Term | None:
        return self._leading.term

    @property
    def machine(self) -> CoordinatorMachine:
        """For questions; only this server may feed it. Raises RuntimeError on a standby."""
        if self._term is None:
            raise RuntimeError("this coordinator does not lead")
        return self._term.machine

    async def start(self) -> int:
        """Listens and returns the port; leads if nobody else can.

        Raises ConfigError when the address cannot be used, and when a store of this process alone
        cannot be read or belongs to another job.
        """
        try:
            host, port = parse_address(self._options.listen)
        except ValueError as error:
            raise ConfigError(f"listen address {self._options.listen!r}: {error}") from None
        self._check_advertised(host)
        if self._options.metrics_port is not None:
            shown = self._options.metrics_host
            http = self.serve_http(self._options.metrics_port, shown)
            scheme = "http" if is_loopback(shown) else "https"
            logger.info("page and metrics: %s://%s/", scheme, _join(shown, http))
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((self._handlers(),))
        bound = await self._listen(server, host, port)
        await server.start()
        self._server = server
        self._address = self._options.advertise or _join(host, bound)
        leading = asyncio.create_task(self._leading.run(self._address), name="atoll-lead")
        self._tasks = [leading, asyncio.create_task(self._observe())]
        if not self._store.shared:
            led = asyncio.create_task(self._leading.first.wait())
            await asyncio.wait([led, leading], return_when=asyncio.FIRST_COMPLETED)
            led.cancel()
            if leading.done():
                await self.stop()
                leading.result()
        return bound

    def serve_http(self, port: int, host: str) -> int:
        """Serves metrics, their discovery and the page; the port. Raises ConfigError."""
        return self.site.listen(host, port, self._options.identity, self._trust.admits)

    async def _listen(self, server: Any, host: str, port: int) -> int:
        gate = self._trust.gate
        try:
            if gate is None:
                bound: int = server.add_insecure_port(_join(host, port))
            else:
                server.add_insecure_port(gate.target)
                bound = await gate.start(host, port)
        except (RuntimeError, OSError):
            bound = 0
        if not bound:
            self._close_http()
            raise ConfigError(
                f"cannot listen on {_join(host, port)}: in use, or not this machine's"
            )
        return bound

    async def stop(
        self, message: str = "the coordinator stops", *, hand_over: bool = False
    ) -> None:
        """Asks every peer to leave, and ends. Bounded by a few seconds; idempotent. `hand_over`:
        the job goes on, under whoever leads next."""
        if self._server is None:
            return
        server, self._server = self._server, None
        if self._term is not None and not hand_over:
            self._term.post(StopRequested(message=message))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._empty.wait()
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._wake()
        self._operators.turn_away()  # these streams end by themselves; else gRPC cancels them aloud
        await server.stop(grace=2.0)
        await ended_calls()
        if self._trust.gate is not None:
            await self._trust.gate.close()
        self._close_http()
        await self._store.close()

    def _close_http(self) -> None:
        self._board.close()
        self.site.close()

    async def wait_stopped(self) -> None:
        """Returns when an operator has stopped the job and all peers have gone. Raises ConfigError
        when the store cannot be used."""
        empty = asyncio.create_task(self._empty.wait())
        leading = self._tasks[0]
        try:
            await asyncio.wait([empty, leading], return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()
        finally:
            empty.cancel()

    # --- leading, or standing by ------------------------------------------------------------------

    def _turn_all_away(self) -> None:
        """Whoever has a stream learns that it has to look elsewhere."""
        self._operators.turn_away()
        for stream in self._streams.values():
            stream.put(self._not_leader())
            self._close(stream.number)
        self._wake()

    def _not_leader(self) -> bytes:
        # Its own address is not told: it has just ceased to lead.
        leader = self._store.leader()
        leader = "" if leader == self._address else leader
        message = NotLeader(leader=leader, message=_elsewhere(leader))
        return coordinator_message_to_pb(message).SerializeToString()

    def _check_advertised(self, host: str) -> None:
        advertised = self._options.advertise
        if advertised:
            try:
                parse_address(advertised)
            except ValueError as error:
                raise ConfigError(f"advertised address {advertised!r}: {error}") from None
        elif self._store.shared and host in ("0.0.0.0", "::"):
            raise ConfigError(
                f"listens on {host}, which is no address to find it at: advertise one, for "
                f"example {socket.gethostname()}:PORT"
            )

    # --- around the machine -----------------------------------------------------------------------

    def _act(self, action: Visible) -> None:
        match action:
            case Send(stream=number, message=message):
                self._send(number, message)
            case Close(stream=number):
                self._close(number)
            case Tell(event=job_event):
                logger.info("%s", job_event.message)
                self.metrics.observe_event(job_event)
                self._board.tell(job_event, job_event.at_s + self._unix_minus_machine_s)
                self._told = True
                self._wake()
            case _:
                assert_never(action)

    def _after(self) -> None:
        if self._told:
            self._told = False
            self._count()
        if self._term is not None and self._term.machine.stopping and not self._streams:
            self._empty.set()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _send(self, number: int, message: CoordinatorMessage) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.put(stream.outgoing.encode(message))

    def _close(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.put(None)
            asyncio.get_running_loop().call_later(FLUSH_S, stream.stuck.set)

    async def _observe(self) -> None:
        while True:
            self._leading.observe()
            before_s = time.process_time()
            self._count()
            # With thousands of peers that takes a while.
            await asyncio.sleep(max(OBSERVE_S, 50 * (time.process_time() - before_s)))

    def _count(self) -> None:
        status = None
        if self._term is not None:
            status = self._term.machine.status(time.monotonic())
            self._board.links(*self._term.machine.figures())
        self.metrics.observe(status, len(self._streams), self._leading.changes)
        self._board.observe(
            status,
            leader=self._store.leader(),
            uptime_s=time.monotonic() - self._began_s,
            unix_s=time.time(),
        )

    def _begin_term(self) -> None:
        self.metrics.begin_term()
        self._board.begin_term()

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
                **self._operators.handlers(),
                **self._diagnosis.handlers(),
                **self._trust.handlers(),
            },
        )

    async def _attach(self, _requests: Any, context: Any) -> None:
        await self._trust.require(context, Role.ISLAND)
        if self._term is None:
            await context.write(self._not_leader())
            return
        stream = Attached(next(self._numbers), self._term, self._encoder)
        self._streams[stream.number] = stream
        tasks = [
            asyncio.create_task(self._read(stream, context)),
            asyncio.create_task(write(stream, context)),
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
            stream.term.post(StreamLost(stream=stream.number))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if problem is not None:
            self.metrics.malformed.inc()
            logger.warning("stream %d: %s", stream.number, problem)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))

    async def _read(self, stream: Attached, context: Any) -> None:
        caller = self._trust.caller(context)
        while True:
            data = await context.read()
            if not isinstance(data, bytes):  # EOF
                return
            messages = parse(data)
            islands = {m.island for m in messages if isinstance(m, Register)}
            refusals = (self._trust.refuses_island(caller, island) for island in islands)
            if refusal := next(filter(None, refusals), ""):
                word = coordinator_message_to_pb(Refused(message=refusal))
                stream.put(word.SerializeToString())
                self._close(stream.number)
                await asyncio.Event().wait()  # until that word is said
            first, *also = messages
            await stream.term.handled(
                Received(stream=stream.number, message=first, also=tuple(also))
            )

    async def _status(self, _request: pb.StatusRequest, context: Any) -> pb.StatusReply:
        await self._trust.require(context, *Role)
        now_s = time.monotonic()
        if self._term is not None:
            reply = status_to_pb(
                self._term.machine.status(now_s), uptime_s=now_s - self._began_s, now_s=now_s
            )
        else:
            reply = pb.StatusReply(
                job=self._options.coordinator.job, uptime_s=now_s - self._began_s
            )
        reply.standby = self._term is None
        reply.leader = self._store.leader()
        reply.leader_changes = self._leading.changes
        reply.store = self._store.where
        return reply

    async def _watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.JobEvent]:
        await self._trust.require(context, *Role)
        after = request.after
        term = await self._term_or_abort(context)
        while not self._stopping and self._term is term:
            news = self._news
            for event in term.machine.events(after):
                yield job_event_to_pb(event, self._unix_minus_machine_s)
                after = event.number
            await news.wait()
        if not self._stopping:
            await self._term_or_abort(context)

    async def _stop(self, request: pb.StopRequest, context: Any) -> pb.StopReply:
        await self._trust.require(context, Role.OPERATOR, Role.COORDINATOR)
        term = await self._term_or_abort(context)
        await term.handled(StopRequested(message=request.message))
        return pb.StopReply()

    async def _term_or_abort(self, context: Any) -> Term:
        if self._term is None:
            leader = self._store.leader()
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, _elsewhere(leader))
            raise AssertionError("abort raises")
        return self._term


def _elsewhere(leader: str) -> str:
    found = f"the leader is at {leader}" if leader else "nobody leads at the moment"
    return f"this coordinator stands by; {found}"


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
