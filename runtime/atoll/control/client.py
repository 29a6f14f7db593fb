"""A peer's control thread: it runs the peer's machine between the stream and the engine.

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
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

from atoll import errors
from atoll.config import parse_addresses
from atoll.control.channel import on_loop_error
from atoll.control.engine_driver import EngineCommand, EngineDriver
from atoll.control.forked import close_in_children
from atoll.control.membership import Membership
from atoll.control.stream import CoordinatorStream
from atoll.membership.messages import Departure, Endpoint, PeerId, Report, View
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    AppArrived,
    AppDrain,
    AppHolding,
    AppLeave,
    AppMeasure,
    AppReady,
    AppReport,
    Carry,
    Dial,
    Drop,
    Ended,
    EngineStarted,
    Expect,
    FenceEngine,
    InstallEngine,
    PeerAction,
    PeerEvent,
    Probe,
    Reconnect,
    Say,
    StartEngine,
    Tick,
)
from atoll.trust.names import uris_of

if TYPE_CHECKING:
    from atoll._core import Engine
    from atoll.trust.identity import Identity

logger = logging.getLogger(__name__)

TICK_S = 0.05
CLOSE_S = 5.0
KEPT_VIEWS = 64


class ControlClient:
    """A session's face of the control plane. Every method may be called from any thread."""

    def __init__(
        self,
        *,
        coordinator: str,
        job: str,
        island: str,
        shard: int = 0,
        shards: int = 1,
        engine_factory: Callable[[PeerId, bytes], Engine],
        advertise_hosts: Sequence[str] = ("127.0.0.1",),
        connect_timeout_s: float = 20.0,
        on_op_ended: Callable[[int], None],
        on_fence_over: Callable[[str, float], None] = lambda kind, seconds: None,
        software_version: str,
        probes: bool = True,
        identity: Identity | None = None,
        leave_s: float = 30.0,
    ) -> None:
        """coordinator: HOST:PORT, or several with commas. shard: which of the island's `shards`
        peers this one is. `engine_factory(peer, secret)` makes a
        listening engine once the job has welcomed this peer; `on_op_ended` is called by the control
        thread. Raises ConfigError for an address that is none."""
        try:
            coordinators = parse_addresses(coordinator)
        except ValueError as error:
            raise errors.ConfigError(f"coordinator {coordinator!r}: {error}") from None
        self._coordinator = coordinator
        self._job = job
        self._engine_factory = engine_factory
        self._advertise_hosts = tuple(advertise_hosts)
        self._connect_timeout_s = connect_timeout_s
        self._on_op_ended = on_op_ended
        self._on_fence_over = on_fence_over
        self._machine = PeerMachine(
            peer=secrets.token_bytes(16),
            island=island,
            shard=shard,
            shards=shards,
            job=job,
            software_version=software_version,
            probes=probes,
            coordinators=coordinators,
            leave_s=leave_s,
        )
        self._identity = identity
        self._engine: Engine | None = None
        self._driver: EngineDriver | None = None
        self._history: dict[int, View] = {}
        self._changed = threading.Condition()
        self._membership = self._snapshot()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        # Of the control thread:
        self._finish = asyncio.Event()
        self._stream = CoordinatorStream(coordinators[0], self._drive, self._wants_stream, identity)

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
            raise self._nobody_answers() from None
        except errors.AtollError:
            self.close()
            raise
        close_in_children(parse_addresses(self._coordinator))

    def _nobody_answers(self) -> errors.CannotJoin:
        from atoll.trust.why import refusal

        job, limit_s = self._job, self._connect_timeout_s
        if self._machine.turned_away:
            return errors.CannotJoin(
                f"no coordinator of job '{job}' leads within {limit_s:g} s "
                f"({self._machine.turned_away}); look at what they log: does their store answer?"
            )
        for address in parse_addresses(self._coordinator):
            why = refusal(address, self._identity, now=datetime.now(UTC))
            if why is not None:
                return errors.CannotJoin(
                    f"the coordinator of job '{job}' at {address} does not let this island in: "
                    f"{why}",
                    final=True,
                )
        return errors.CannotJoin(
            f"no coordinator of job '{job}' answered at {self._coordinator} within "
            f"{limit_s:g} s; check that it runs there and that the address is reachable from here"
        )

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

    def measure_links(self) -> None:
        """Asks the coordinator to have all links measured anew."""
        self._post(AppMeasure())

    def links_carry(self, times: Mapping[bytes, float]) -> None:
        """So many times what was measured of them, as ops have shown."""
        self._post(AppArrived(times=dict(times)))

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

    def drain(self, message: str) -> None:
        """This island is to leave once its round is over: `Membership.draining` says so."""
        self._post(AppDrain(message=message))

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
            if self._driver is not None:
                self._driver.abandon()
            raise

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(on_loop_error)
        self._loop = loop
        return loop

    async def _main(self) -> None:
        if self._closing:
            return
        self._stream.open()
        while not self._finish.is_set():
            self._stream.check()
            self._drive(Tick())
            if self._driver is not None:
                self._driver.take_events()  # those that did not ring
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finish.wait(), TICK_S)
        await self._stream.close()
        if self._driver is not None and self._loop is not None:
            self._driver.detach(self._loop)

    def _drive(self, event: PeerEvent) -> None:
        for action in self._machine.handle(event, time.monotonic()):
            self._act(action)
        self._publish(self._machine.ended)

    def _act(self, action: PeerAction) -> None:
        match action:
            case Say(message=message):
                self._stream.say(message)
            case Reconnect(at_s=at_s, coordinator=coordinator):
                self._stream.reopen(at_s, coordinator)
            case StartEngine(secret=secret):
                self._start_engine(secret)
            case Ended():
                self._end()
            case Expect() | Dial() | Carry() | Drop() | FenceEngine() | InstallEngine() | Probe():
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
            draining=machine.draining,
            history=self._history,
        )

    def _remember(self, view: View) -> None:
        kept = list(self._history.items())[-KEPT_VIEWS + 1 :]
        self._history = {**dict(kept), view.epoch: view}

    def _wants_stream(self) -> bool:
        return self._machine.ended is None and not self._machine.left

    # --- the engine -------------------------------------------------------------------------------

    def _start_engine(self, secret: bytes) -> None:
        try:
            engine = self._engine_factory(self._machine.peer, secret)
        except errors.AtollError as error:
            self._machine.ended = error
            return
        self._engine = engine
        self._driver = EngineDriver(
            engine,
            on_event=self._drive,
            on_op_ended=self._on_op_ended,
            on_fence_over=self._on_fence_over,
            names_of=self._names_of,
        )
        self._driver.attach()
        endpoints = tuple(Endpoint(host=host, port=engine.port) for host in self._advertise_hosts)
        self._drive(EngineStarted(endpoints=endpoints))

    def _names_of(self, island: str) -> list[str]:
        return uris_of(self._job, island) if self._identity is not None else []

    def _command(self, action: EngineCommand) -> None:
        if self._driver is None:
            return
        if isinstance(action, InstallEngine):
            # Known before any op of it can end.
            self._remember(action.view)
            self._publish(self._machine.ended)
        self._driver.do(action)

    def _end(self) -> None:
        """The others go on without this peer: every op that waits here is to wake."""
        if self._driver is not None:
            self._publish(self._machine.ended)  # so that who wakes finds the reason
            self._driver.close()
