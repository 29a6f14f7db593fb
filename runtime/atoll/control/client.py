"""A peer's control thread: the stream to the coordinator, the peer's machine, the engine's events.

Threads: `atoll-control` owns everything but the snapshot; the user's threads post to it and read
the snapshot under one lock. docs/threads.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, assert_never

import grpc

from atoll import errors
from atoll.config import parse_address
from atoll.control.channel import CHANNEL_OPTIONS, SERVICE, on_loop_error, say
from atoll.control.convert import MalformedMessage, coordinator_message_from_pb
from atoll.control.engine_events import from_engine
from atoll.control.membership import Membership
from atoll.membership.messages import Departure, Endpoint, PeerId, PeerMessage, Report, View
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    AppHolding,
    AppLeave,
    AppReady,
    AppReport,
    Dial,
    Drop,
    Ended,
    EngineStarted,
    Expect,
    FenceEngine,
    Heard,
    InstallEngine,
    PeerAction,
    PeerEvent,
    Reconnect,
    Say,
    StartEngine,
    StreamLost,
    StreamUp,
    Tick,
)
from atoll.pb import control_pb2 as pb

if TYPE_CHECKING:
    from atoll._core import Engine

logger = logging.getLogger(__name__)

TICK_S = 0.05
CLOSE_S = 5.0
FLUSH_S = 1.0
"""How long the last words may take to reach the coordinator."""
KEPT_VIEWS = 64


class ControlClient:
    """A session's face of the control plane. Every method may be called from any thread."""

    def __init__(
        self,
        *,
        coordinator: str,
        job: str,
        island: str,
        engine_factory: Callable[[PeerId, bytes], Engine],
        advertise_host: str = "127.0.0.1",
        connect_timeout_s: float = 20.0,
        on_op_ended: Callable[[int], None],
        software_version: str,
    ) -> None:
        """coordinator: HOST:PORT. `engine_factory(peer, secret)` makes a listening engine once the
        job has welcomed this peer; `on_op_ended` is called by the control thread. Raises
        ConfigError for an address that is none."""
        try:
            parse_address(coordinator)
        except ValueError as error:
            raise errors.ConfigError(f"coordinator {coordinator!r}: {error}") from None
        self._coordinator = coordinator
        self._job = job
        self._engine_factory = engine_factory
        self._advertise_host = advertise_host
        self._connect_timeout_s = connect_timeout_s
        self._on_op_ended = on_op_ended
        self._machine = PeerMachine(
            peer=secrets.token_bytes(16),
            island=island,
            job=job,
            software_version=software_version,
        )
        self._engine: Engine | None = None
        self._history: dict[int, View] = {}
        self._changed = threading.Condition()
        self._membership = self._snapshot()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        # Of the control thread:
        self._finish = asyncio.Event()
        self._outgoing: asyncio.Queue[PeerMessage] = asyncio.Queue()
        self._stream_task: asyncio.Task[None] | None = None
        self._reconnect: asyncio.TimerHandle | None = None

    # --- the session's side -----------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """Raises SessionClosed before `start` has returned."""
        if self._engine is None:
            raise errors.SessionClosed("the session was not started")
        return self._engine

    def start(self) -> None:
        """Returns when the job has welcomed this peer and its engine listens.

        Raises CannotJoin when the coordinator cannot be reached in time or refuses.
        """
        self._thread = threading.Thread(target=self._run, name="atoll-control", daemon=True)
        self._thread.start()
        try:
            self.wait(
                lambda now: now.connected and self._engine is not None, self._connect_timeout_s
            )
        except errors.DeadlineExceeded:
            self.close()
            raise errors.CannotJoin(
                f"no coordinator of job '{self._job}' answered at {self._coordinator} within "
                f"{self._connect_timeout_s:g} s; check that it runs there and that the address is "
                "reachable from here"
            ) from None
        except errors.AtollError:
            self.close()
            raise

    def ready(self) -> None:
        """This peer holds the shared state that is current, or needs none."""
        self._post(AppReady())

    def holding(self, epoch: int | None = None) -> None:
        """This peer holds the shared state of view `epoch`; None: of the one in `membership()`."""
        known = self.membership().view.epoch if epoch is None else epoch
        self._post(AppHolding(epoch=known))

    def report(self, report: Report) -> None:
        """For people and metrics."""
        self._post(AppReport(report=report))

    def leave(self, reason: Departure, timeout_s: float) -> bool:
        """Leaves the view politely. Returns whether this peer is out of it, or never was in one."""
        if self._thread is None:
            return True
        self._post(AppLeave(reason=reason))
        try:
            return self.wait(lambda now: now.left, timeout_s).left
        except errors.DeadlineExceeded:
            return False
        except errors.AtollError:
            return True  # it ended otherwise

    def membership(self) -> Membership:
        """What is known now."""
        return self._membership

    def wait(self, predicate: Callable[[Membership], bool], timeout_s: float) -> Membership:
        """Returns the first membership that satisfies `predicate`, asked under a lock.

        Raises DeadlineExceeded after `timeout_s`, and what ended the peer's part in the job.
        """
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                now = self._membership
                if predicate(now):
                    return now
                if now.ended is not None:
                    raise now.ended
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    raise errors.DeadlineExceeded(f"nothing of the kind within {timeout_s:g} s")
                self._changed.wait(left_s)

    def close(self) -> None:
        """Stops the thread, after it has said what it still has to say. Idempotent, bounded."""
        self._closing = True
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._call(self._finish.set)
        thread.join(CLOSE_S)
        if thread.is_alive():
            logger.warning("the control thread did not stop within %g s", CLOSE_S)

    def _post(self, event: PeerEvent) -> None:
        self._call(lambda: self._drive(event))

    def _call(self, function: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(function)

    # --- the control thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._make_loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            logger.exception("the control thread failed")
            self._publish(errors.SessionClosed(f"the control thread failed: {error!r}"))
            if self._engine is not None:
                self._engine.close()
            raise

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(on_loop_error)
        self._loop = loop
        return loop

    async def _main(self) -> None:
        if self._closing:
            return
        self._connect()
        while not self._finish.is_set():
            self._drive(Tick())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finish.wait(), TICK_S)
        if self._reconnect is not None:
            self._reconnect.cancel()
        await self._flush()
        if self._stream_task is not None:
            self._stream_task.cancel()
            await asyncio.gather(self._stream_task, return_exceptions=True)
        self._forget_engine()

    async def _flush(self) -> None:
        task = self._stream_task
        if task is None or task.done():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                while not self._outgoing.empty() and not task.done():
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.01)  # for the message that was taken last

    def _drive(self, event: PeerEvent) -> None:
        for action in self._machine.handle(event, time.monotonic()):
            self._act(action)
        self._publish(self._machine.ended)

    def _act(self, action: PeerAction) -> None:
        match action:
            case Say(message=message):
                self._outgoing.put_nowait(message)
            case Reconnect(at_s=at_s):
                if self._stream_task is not None:
                    self._stream_task.cancel()
                    self._stream_task = None
                loop = asyncio.get_running_loop()
                delay_s = max(0.0, at_s - time.monotonic())
                self._reconnect = loop.call_later(delay_s, self._connect)
            case StartEngine(secret=secret):
                self._start_engine(secret)
            case Ended():
                self._end()
            case Expect() | Dial() | Drop() | FenceEngine() | InstallEngine():
                self._command(action)
            case _:
                assert_never(action)

    def _publish(self, ended: errors.AtollError | None) -> None:
        now = self._snapshot(ended)
        with self._changed:
            if now != self._membership:
                self._membership = now
                self._changed.notify_all()

    def _snapshot(self, ended: errors.AtollError | None = None) -> Membership:
        machine = self._machine
        return Membership(
            peer=machine.peer,
            order=machine.order,
            view=machine.view,
            starts=machine.starts,
            holders=machine.holders,
            member=machine.member,
            peers=machine.peers,
            donors=machine.donors,
            linked=machine.linked,
            connected=machine.connected,
            left=machine.left,
            ended=ended,
            history=self._history,
        )

    def _remember(self, view: View) -> None:
        kept = list(self._history.items())[-KEPT_VIEWS + 1 :]
        self._history = {**dict(kept), view.epoch: view}

    # --- the engine -------------------------------------------------------------------------------

    def _start_engine(self, secret: bytes) -> None:
        try:
            engine = self._engine_factory(self._machine.peer, secret)
        except errors.AtollError as error:
            self._machine.ended = error
            return
        self._engine = engine
        asyncio.get_running_loop().add_reader(engine.event_fd, self._take_events)
        endpoint = Endpoint(host=self._advertise_host, port=engine.port)
        self._drive(EngineStarted(endpoints=(endpoint,)))

    def _take_events(self) -> None:
        if self._engine is None:
            return
        for native in self._engine.take_events():
            event = from_engine(native)
            if isinstance(event, int):
                self._on_op_ended(event)
            else:
                self._drive(event)

    def _command(self, action: Expect | Dial | Drop | FenceEngine | InstallEngine) -> None:
        engine = self._engine
        if engine is None:
            return
        match action:
            case Expect(peer=peer):
                engine.expect(peer)
            case Dial(peer=peer, endpoint=endpoint):
                engine.dial(peer, endpoint.host, endpoint.port)
            case Drop(peer=peer):
                engine.drop(peer)
            case FenceEngine(attempt=attempt, kind=kind):
                engine.fence(attempt, kind.value)
            case InstallEngine(view=view, starts=starts, kind=kind):
                # Known before any op of it can end.
                self._remember(view)
                self._publish(self._machine.ended)
                engine.install(view.epoch, list(view.ids), dict(starts), kind.value)
            case _:
                assert_never(action)

    def _end(self) -> None:
        """The others go on without this peer: every op that waits here is to wake."""
        if self._engine is not None:
            self._publish(self._machine.ended)  # so that who wakes finds the reason
            self._engine.close()

    def _forget_engine(self) -> None:
        if self._engine is not None and self._loop is not None:
            self._take_events()
            self._loop.remove_reader(self._engine.event_fd)

    # --- the stream -------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._reconnect = None
        if self._machine.ended is None and not self._machine.left:
            self._outgoing = asyncio.Queue()
            self._stream_task = asyncio.create_task(self._talk(self._outgoing))

    async def _talk(self, outgoing: asyncio.Queue[PeerMessage]) -> None:
        """One stream, from its opening to its end."""
        message = "the coordinator closed it"
        async with grpc.aio.insecure_channel(self._coordinator, CHANNEL_OPTIONS) as channel:
            attach: Any = channel.stream_stream(
                f"/{SERVICE}/Attach",
                request_serializer=pb.PeerMessage.SerializeToString,
                response_deserializer=pb.CoordinatorMessage.FromString,
            )
            call = attach()
            self._drive(StreamUp())
            writer = asyncio.create_task(say(call, outgoing))
            try:
                await self._listen(call)
            except (grpc.RpcError, MalformedMessage) as error:
                code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
                message = code.name.lower() if code else str(error)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                call.cancel()
        logger.debug("stream to the coordinator ended: %s", message)
        if self._stream_task is asyncio.current_task():
            self._stream_task = None
            self._drive(StreamLost(message=message))

    async def _listen(self, call: Any) -> None:
        while True:
            message = await call.read()
            if not isinstance(message, pb.CoordinatorMessage):  # EOF
                return
            self._drive(Heard(message=coordinator_message_from_pb(message)))
