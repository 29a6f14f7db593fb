"""Runs a job's islands on this machine: one event loop joins supervisor, processes and observer.

    Children --exits, lines--> Job --events--> Supervisor --actions--> Job --> Children
    Observer --events-------->  |  --events--> Display, EventsFile

All of it runs on the main thread; only the display draws on a thread of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from atoll.pb import control_pb2 as pb
from atoll_launcher import supervisor as sv
from atoll_launcher.children import Children, Exit
from atoll_launcher.display import Display
from atoll_launcher.events import Event, EventsFile, Kind, Value
from atoll_launcher.observer import Observer
from atoll_launcher.settings import IslandPlan, island_environment
from atoll_launcher.traces import traceback_lines

# For the last events of islands that have ended to come in.
DRAIN_S = 1.0
# For a process whose connections are closed already to end. Measured: up to 4 ms on a busy machine
# with a small script; a large one has more to give back.
SETTLE_S = 2.0

STOP_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What to run. `hosts`: this launcher's process is the home of the coordinator at `address`.

    `after`: the number of the coordinator's last event before this launcher came.
    """

    name: str
    address: str
    after: int
    hosts: bool
    command: tuple[str, ...]
    """The script and its arguments."""
    islands: tuple[IslandPlan, ...]
    max_restarts: int
    floor: int
    log_dir: Path
    metrics_port: int
    session_variables: Mapping[str, str]


class Job:
    """One run of `atoll run`. `run` is called once."""

    def __init__(self, plan: JobPlan, display: Display, events: EventsFile | None) -> None:
        self._plan = plan
        self._display = display
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._supervisor = sv.Supervisor(
            [island.name for island in plan.islands],
            max_restarts=plan.max_restarts,
            floor=plan.floor,
            hosts=plan.hosts,
        )
        self._islands = {island.name: island for island in plan.islands}
        self._children = Children(self._loop, display.line, self._child_exited)
        self._observer = Observer(
            plan.address, self._observed, self._status, self._settle, plan.after
        )
        self._verdict: asyncio.Future[sv.Finish] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._exits: dict[str, Exit] = {}
        self._others = 0
        self._present: set[str] = set()
        self._metrics_shown: set[tuple[str, int]] = set()
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> tuple[sv.Finish, Exit | None]:
        """Run all islands to their end; return the verdict, and the failure worth showing."""
        for number, code in STOP_SIGNALS.items():
            self._loop.add_signal_handler(number, self._stop_signal, code)
        self._emit(
            Kind.LISTENING,
            address=self._plan.address,
            job=self._plan.name,
            log_dir=str(self._plan.log_dir),
            metrics_port=self._plan.metrics_port,
        )
        self._loop.set_exception_handler(self._callback_failed)
        observing = asyncio.ensure_future(self._observer.run())
        try:
            self._feed(sv.Begin())
            either: list[asyncio.Future[Any]] = [self._verdict, observing]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if observing.done():
                observing.result()  # it only ends by an error, which is ours
            verdict = await self._verdict
            await self._drain()
        finally:
            observing.cancel()
            await asyncio.gather(observing, *self._background, return_exceptions=True)
            await self._observer.close()
            self._children.close()
        self._emit(Kind.FINISHED, code=verdict.code, message=verdict.message)
        return verdict, self._exits.get(verdict.shown)

    # --- events in --------------------------------------------------------------------------------

    def _feed(self, event: sv.Event) -> None:
        for action in self._supervisor.handle(event, self._loop.time()):
            self._act(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._supervisor.deadline_s()
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._feed, sv.Tick())

    def _child_exited(self, ended: Exit) -> None:
        self._exits[ended.island] = ended
        self._display.flush(ended.island)
        if ended.error:
            self._display.failure(ended.island, traceback_lines(ended.tail))
        self._emit(
            Kind.EXITED,
            ended.island,
            pid=ended.pid,
            code=ended.code,
            signal=ended.signal,
            error=ended.error,
            log=str(ended.log),
        )
        self._feed(
            sv.ChildExited(
                island=ended.island, code=ended.code, signal=ended.signal, error=ended.error
            )
        )

    async def _settle(self, event: Event) -> None:
        """Hold a loss back until we know how the process ended.

        The kernel closes a dying process's connections before it tells the parent, so the
        coordinator is often the first to know.
        """
        is_loss = event.kind is Kind.LEFT and event.text("reason") == "crashed"
        if not is_loss or event.island in self._exits:
            return
        deadline_s = self._loop.time() + SETTLE_S
        while event.island in self._children.running and self._loop.time() < deadline_s:
            await asyncio.sleep(0.01)

    def _observed(self, event: Event) -> None:
        ours = event.island in self._islands
        if event.kind is Kind.LEFT and ours:
            ended = self._exits.get(event.island)
            if ended is not None and ended.signal:
                event = Event(
                    kind=event.kind,
                    time_s=event.time_s,
                    island=event.island,
                    fields={**event.fields, "signal": ended.signal},
                )
        self._write(event)
        if event.kind is Kind.JOINED and ours:
            # From here on, a loss is the present process's, not that of the one before it.
            if event.island in self._children.running:
                self._exits.pop(event.island, None)
            self._feed(sv.Joined(island=event.island))
        if event.kind is Kind.STOPPING:
            self._feed(sv.JobStopped())
        if event.kind is Kind.REPORT:
            self._show_metrics(event)

    def _status(self, status: pb.StatusReply) -> None:
        self._present = {peer.info.island for peer in status.peers}
        others = len(self._present - self._islands.keys())
        if others != self._others:
            self._others = others
            self._feed(sv.OthersPresent(count=others))

    def _stop_signal(self, code: int) -> None:
        self._feed(sv.StopRequested(exit_code=code))

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the run with an error of the launcher itself: without a callback it would hang."""
        error = context.get("exception")
        # gRPC's poller complains in this way of a wake-up that somebody else has taken.
        is_ours = isinstance(error, Exception) and not isinstance(error, BlockingIOError)
        if is_ours and not self._verdict.done():
            self._verdict.set_exception(error or RuntimeError(context["message"]))
        else:
            loop.default_exception_handler(context)

    # --- actions out ------------------------------------------------------------------------------

    def _act(self, action: sv.Action) -> None:
        match action:
            case sv.Start():
                self._start(action)
            case sv.Restarting():
                self._emit(
                    Kind.RESTARTING,
                    action.island,
                    attempt=action.attempt,
                    wait_s=action.wait_s,
                )
            case sv.GaveUp():
                self._emit(Kind.GAVE_UP, action.island, reason=action.reason)
            case sv.Waiting():
                self._emit(Kind.NOTE, message=action.message)
            case sv.NoticeStop():
                if not self._plan.hosts:
                    self._emit(Kind.NOTE, message=f"stopping: {action.message}")
                else:  # the coordinator will say so, to everybody
                    task = asyncio.ensure_future(self._observer.stop_job(action.message))
                    self._background.add(task)
            case sv.Terminate():
                self._children.terminate(action.island)
            case sv.Kill():
                self._children.kill(action.island)
            case sv.Finish():
                if not self._verdict.done():
                    self._verdict.set_result(action)
            case _:
                assert_never(action)

    def _start(self, action: sv.Start) -> None:
        island = self._islands[action.island]
        log = self._plan.log_dir / f"{island.name}.log"
        env = island_environment(island, action.attempt, os.environ, self._plan.session_variables)
        title = f"{island.name}, start {action.attempt + 1}: {' '.join(self._plan.command)}"
        pid = self._children.start(island.name, self._plan.command, env, log, title)
        self._emit(Kind.STARTED, island.name, pid=pid, attempt=action.attempt, log=str(log))

    def _show_metrics(self, event: Event) -> None:
        port = event.integer("metrics_port")
        if (
            port
            and event.island in self._islands
            and (event.island, port) not in self._metrics_shown
        ):
            self._metrics_shown.add((event.island, port))
            self._emit(
                Kind.NOTE,
                message=f"{event.island} serves metrics on http://127.0.0.1:{port}/metrics",
            )

    def _emit(self, kind: Kind, island: str = "", **fields: Value) -> None:
        self._write(Event(kind=kind, time_s=time.time(), island=island, fields=fields))

    def _write(self, event: Event) -> None:
        if self._events is not None:
            self._events.write(event)
        self._display.event(event)

    # --- the end ----------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Wait, for a bounded time, until the coordinator knows that our islands have left."""
        deadline_s = self._loop.time() + DRAIN_S
        while self._loop.time() < deadline_s:
            if await self._observer.refresh() is None:
                return
            if not self._present & self._islands.keys():
                return
            await asyncio.sleep(0.05)
