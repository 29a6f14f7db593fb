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

from atoll.leaving import ONE_NOTICE_S
from atoll.pb import control_pb2 as pb
from atoll.trust.identity import Identity
from atoll.watching.discovery import place
from atoll_launcher.islands import preflight
from atoll_launcher.islands import supervisor_events as sv
from atoll_launcher.islands.children import Children, Exit, ProcessPlan
from atoll_launcher.islands.feed import Feed
from atoll_launcher.islands.log_service import LogFile, LogService
from atoll_launcher.islands.supervisor import Supervisor
from atoll_launcher.islands.traces import traceback_lines
from atoll_launcher.settings import IslandPlan, island_environment
from atoll_launcher.watch.display import Display
from atoll_launcher.watch.events import Event, EventsFile, Kind, Value
from atoll_launcher.watch.observer import Observer

# For the last events of islands that have ended to come in.
DRAIN_S = 1.0
# For a process whose connections are closed already to end. Measured: up to 4 ms on a busy machine
# with a small script; a large one has more to give back.
SETTLE_S = 2.0

DRAINED = "it was drained"
PUT_OUT = {
    "killed": "it was killed",
    "revoked": "its certificate was revoked; it may come back with a new token",
}
"""By the reason for which an operator puts an island out."""
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
    leave_s: float = 30.0
    """For the islands to leave on SIGTERM; 0: they are stopped."""
    identity: Identity | None = None
    """With which the coordinator is asked."""
    authority: Path | None = None
    """Of a job that is hosted here: makes tokens for those who want to join."""

    def log(self, island: IslandPlan, shard: int) -> Path:
        """The file with all that a process prints."""
        return self.log_dir / f"{island.label(shard)}.log"


def metrics_url(peer: pb.PeerStatus, *, secure: bool) -> str:
    """Where an island of this machine serves its metrics; without certificates on loopback alone
    (`IslandMetrics.serve`)."""
    host = peer.info.endpoints[0].host if secure and peer.info.endpoints else "127.0.0.1"
    return "{}://{}/metrics".format(*place(host, peer.report.metrics_port, secure=secure))


class Job:
    """One run of `atoll run`. `run` is called once."""

    def __init__(self, plan: JobPlan, display: Display, events: EventsFile | None) -> None:
        self._plan = plan
        self._display = display
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._supervisor = Supervisor(
            [island.name for island in plan.islands],
            max_restarts=plan.max_restarts,
            floor=plan.floor,
            hosts=plan.hosts,
        )
        self._islands = {island.name: island for island in plan.islands}
        self._children = Children(self._loop, self._line, self._child_exited)
        self._observer = Observer(
            plan.address, self._observed, self._status, self._settle, plan.after, plan.identity
        )
        self._logs = LogService(
            {
                island.label(shard): LogFile(island=island.name, path=plan.log(island, shard))
                for island in plan.islands
                for shard in range(island.count)
            },
            self._observer,
        )
        self._verdict: asyncio.Future[sv.Finish] = self._loop.create_future()
        self._feed = Feed(self._supervisor, self._act)
        self._exits: dict[str, Exit] = {}
        self._others = 0
        self._present: set[str] = set()
        self._peers: dict[str, set[bytes]] = {name: set() for name in self._islands}
        self._earlier: dict[str, set[bytes]] = {}  # those that an island was before it was started
        self._metrics_shown: set[tuple[str, int]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._draining: set[str] = set()  # an operator has asked them to leave
        self._sigterm_s: float | None = None  # when the first came

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
            authority="" if self._plan.authority is None else str(self._plan.authority),
            secure=self._plan.identity is not None,
        )
        self._loop.set_exception_handler(self._callback_failed)
        observing = asyncio.ensure_future(self._observer.run())
        logs = asyncio.ensure_future(self._logs.run())
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
            logs.cancel()
            await asyncio.gather(observing, logs, *self._background, return_exceptions=True)
            await self._observer.close()
            self._children.close()
        self._emit(Kind.FINISHED, code=verdict.code, message=verdict.message)
        return verdict, self._exits.get(verdict.shown)

    # --- events in --------------------------------------------------------------------------------

    def _line(self, label: str, text: str) -> None:
        self._display.line(label, text)
        self._logs.line(label, text)

    def _child_exited(self, ended: Exit) -> None:
        self._exits[ended.island] = ended
        island = self._islands[ended.island]
        for shard in range(island.count):
            self._display.flush(island.label(shard))
        if ended.error:
            self._display.failure(ended.label, traceback_lines(ended.tail))
        self._emit(
            Kind.EXITED,
            ended.island,
            pid=ended.pid,
            code=ended.code,
            signal=ended.signal,
            error=ended.error,
            log=str(ended.log),
        )
        if ended.code or ended.signal or ended.island in self._draining:
            self._ended(ended, left=DRAINED if ended.island in self._draining else "")
        else:
            task = asyncio.ensure_future(self._ended_well(ended))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _ended_well(self, ended: Exit) -> None:
        """Its script is over, or it was asked to leave by a signal: the coordinator knows."""
        status = await self._observer.refresh()
        ends = {} if status is None else {one.island: one for one in status.departed}
        end = ends.get(ended.island)
        drained = end is not None and end.reason == pb.DEPARTURE_DRAINED
        self._ended(ended, left=DRAINED if drained else "")

    def _ended(self, ended: Exit, *, left: str) -> None:
        self._feed(
            sv.ChildExited(
                island=ended.island,
                code=ended.code,
                signal=ended.signal,
                error=ended.error,
                left=left,
                refused=ended.refused,
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
        if ours and event.kind is Kind.DRAINING:
            self._draining.add(event.island)
        if ours and event.kind is Kind.LEFT and event.text("reason") in PUT_OUT:
            reason = event.text("reason")
            is_refused = reason == "revoked" and not self._plan.hosts
            self._feed(sv.PutOut(island=event.island, why=PUT_OUT[reason], is_refused=is_refused))
        if event.kind is Kind.STOPPING:
            self._feed(sv.JobStopped())

    def _status(self, status: pb.StatusReply) -> None:
        self._present = {peer.info.island for peer in status.peers}
        others = len(self._present - self._islands.keys())
        for peer in status.peers:
            if peer.info.island in self._islands:
                self._present_as(peer.info.island, peer.info.id, peer.info.id in status.members)
                self._show_metrics(peer)
        if others != self._others:
            self._others = others
            self._feed(sv.OthersPresent(count=others))

    def _present_as(self, island: str, peer: bytes, member: bool) -> None:
        """A coordinator that was killed cannot tell any more of those that joined just before."""
        self._peers[island].add(peer)
        is_new = peer not in self._earlier.get(island, ())
        if member and is_new and island in self._children.running:
            self._feed(sv.Joined(island=island))

    def _stop_signal(self, code: int) -> None:
        """The first SIGTERM is a notice, as spot machines get it; batch systems send several."""
        now_s = self._loop.time()
        if code != STOP_SIGNALS[signal.SIGTERM] or not self._plan.leave_s:
            self._feed(sv.StopRequested(exit_code=code))
        elif self._sigterm_s is None:
            self._sigterm_s = now_s
            self._feed(sv.LeaveRequested(within_s=self._plan.leave_s))
        elif now_s - self._sigterm_s > ONE_NOTICE_S:
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
        self._earlier[island.name] = set(self._peers[island.name])
        port = preflight.free_port()
        processes = [
            ProcessPlan(
                label=island.label(shard),
                env=island_environment(
                    island,
                    action.attempt,
                    os.environ,
                    self._plan.session_variables,
                    shard=shard,
                    master_port=port,
                ),
                log=self._plan.log(island, shard),
                title=f"{island.label(shard)}, start {action.attempt + 1}: "
                f"{' '.join(self._plan.command)}",
            )
            for shard in range(island.count)
        ]
        pids = self._children.start(island.name, self._plan.command, processes)
        self._emit(
            Kind.STARTED,
            island.name,
            pid=pids[0],
            attempt=action.attempt,
            log=str(processes[0].log),
            **({"pids": [str(pid) for pid in pids]} if len(pids) > 1 else {}),
        )

    def _show_metrics(self, peer: pb.PeerStatus) -> None:
        island, port = peer.info.island, peer.report.metrics_port
        if port and (island, port) not in self._metrics_shown:
            self._metrics_shown.add((island, port))
            url = metrics_url(peer, secure=self._plan.identity is not None)
            self._emit(Kind.NOTE, message=f"{island} serves metrics on {url}")

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
