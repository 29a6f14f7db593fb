"""`atoll up`: a whole job over ssh from one machine. The shell around `supervisor`, with hosts in
the place of islands; on each host a launcher (`atoll run --join`) supervises the islands.

    Far (ssh, its output) --exits, lines--> Up --events--> Supervisor --actions--> Up --> Far
    Observer --events----------------------> |  --> Display, EventsFile
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from atoll.pb import control_pb2 as pb
from atoll.trust.identity import Identity
from atoll_launcher import exit_codes
from atoll_launcher.diagnosis.doctor import why_not_joined
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.islands import preflight
from atoll_launcher.islands import supervisor_events as sv
from atoll_launcher.islands.feed import Feed
from atoll_launcher.islands.job import DRAINED, PUT_OUT, STOP_SIGNALS
from atoll_launcher.islands.supervisor import TERMINATED, Supervisor
from atoll_launcher.remote import far_commands as up_commands
from atoll_launcher.remote.far import Far
from atoll_launcher.remote.far_commands import Command, islands_of
from atoll_launcher.remote.prepare import SENT, Trust, authority_here, check_hosts, send_authority
from atoll_launcher.remote.request import UpRequest
from atoll_launcher.watch import whereabouts
from atoll_launcher.watch.display import PlainDisplay
from atoll_launcher.watch.events import Event, EventsFile, Kind, Value
from atoll_launcher.watch.observer import Observer, find_leader

COORDINATOR = "coordinator"
COORDINATOR_S = 20.0
"""For it to answer."""
KILL_AFTER_S = 20.0
"""From the request to end to the end of the connection: the launcher over there kills within 2 s,
and its interpreter and the way to it take their time."""
LEAVE_S = 45.0
"""The same, when islands leave politely: for that they have 30 s unless ATOLL_LEAVE_S differs."""
FINAL = frozenset({exit_codes.USAGE, exit_codes.BELOW_MINIMUM, exit_codes.WORKER_FAILED})
"""With these a launcher has given up what it was to supervise; all else may be its connection."""
VOID = "was revoked"
"""In the last words of a launcher that the coordinator has turned away: what was put out in an
earlier run."""
WANTED = {"drained": DRAINED, **PUT_OUT}
"""What operators want of an island, by the reason for which it then leaves."""
OWN_WORDS = frozenset({"started", "finished", "stopped", "exited:", "starts", "is"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpPlan:
    """What to do, and where to write what happens."""

    request: UpRequest
    log_dir: Path | None = None
    events: Path | None = None
    quiet: bool = False


def in_time(verdict: sv.Finish, late: Sequence[str]) -> sv.Finish:
    """What an end is when launchers of these hosts had to kill islands that did not leave."""
    if not late or verdict.code:
        return verdict
    text = f"islands on {' and '.join(sorted(late))} were not gone in time and were killed"
    return sv.Finish(code=TERMINATED, message=text)


def how_they_left(left: Mapping[str, str], islands: Sequence[str]) -> str:
    """Return how a host's islands left, when all of them did because an operator wanted it; else
    nothing."""
    if not set(islands) <= left.keys():
        return ""
    return " and ".join(dict.fromkeys(left[island] for island in islands))


def dry_run(request: UpRequest) -> list[str]:
    """The commands, in order, without tokens."""
    name = request.job.name
    certs = f".atoll/up-{name}/certs"
    lines = []
    for host, place in {COORDINATOR: request.coordinator, **request.hosts}.items():
        if not place.is_local:
            lines.append(f"{up_commands.ssh_try(place)}  # is {host} there, with atoll on it?")
    lines.append(f"atoll certs init --job {name} --dir {certs}  # unless it is there already")
    if not request.coordinator.is_local:
        sending = shlex.join(up_commands.send_folder(request.coordinator, certs))
        lines.append(f"tar -c -C {certs} {' '.join(SENT)} | {sending}")
        store = f".atoll/up-{name}/job-TIME.db"
    else:
        store = f".atoll/{name}-TIME/job.db"
    lines.append(_shown(up_commands.coordinator(request, store, certs)))
    for host in request.hosts:
        token = f"atoll token --dir {certs} --enroll {request.coordinator.advertises}"
        lines.append(f"{token} --island {host}  # TOKEN, by standard input:")
        lines.append(_shown(up_commands.launcher(request, host, "TOKEN", "FINGERPRINT")))
    return lines


def _shown(command: Command) -> str:
    env = "".join(f"{key}={shlex.quote(value)} " for key, value in command.env.items())
    return f"{shlex.join(command.words)}" + (f"  # with {env.strip()}" if env else "")


def up(plan: UpPlan) -> int:
    """Run the job to its end; return the exit code. Raises LauncherError and ConfigError."""
    events = EventsFile(plan.events) if plan.events else None
    try:
        verdict = asyncio.run(_up(plan, events))
    finally:
        if events is not None:
            events.close()
    if verdict.code not in (exit_codes.OK, 130, 129):
        print(f"atoll: {verdict.message}", file=sys.stderr)
    return verdict.code


async def _up(plan: UpPlan, events: EventsFile | None) -> sv.Finish:
    request = plan.request
    await check_hosts(request)
    trust = authority_here(request)
    log_dir = preflight.make_log_dir(plan.log_dir, request.job.name)
    if not request.coordinator.is_local:
        await send_authority(request, trust)
    display = PlainDisplay(quiet=plan.quiet)
    try:
        return await Up(request, trust, log_dir, display, events).run()
    finally:
        display.close()


class Up:
    """One run of `atoll up`. `run` is called once."""

    def __init__(
        self,
        request: UpRequest,
        trust: Trust,
        log_dir: Path,
        display: PlainDisplay,
        events: EventsFile | None,
    ) -> None:
        self._request, self._trust, self._log_dir = request, trust, log_dir
        self._display, self._events = display, events
        self._loop = asyncio.get_running_loop()
        self._address = request.coordinator.advertises
        self._operator = Identity.in_folder(trust.folder / "operator")
        self._supervisor = Supervisor(
            list(request.hosts),
            max_restarts=request.job.max_restarts,
            # Without all of them it does not begin, unless the file says so.
            floor=1 if request.job.min_islands else len(request.hosts),
            hosts=False,
            kill_after_s=KILL_AFTER_S,
        )
        self._host_of = {
            island: name
            for name, host in request.hosts.items()
            for island in islands_of(name, host)
        }
        self._fars: dict[str, Far] = {}
        # By host: how its islands left that an operator wanted to.
        self._left: dict[str, dict[str, str]] = {name: {} for name in request.hosts}
        self._verdict: asyncio.Future[sv.Finish] = self._loop.create_future()
        self._feed = Feed(self._supervisor, self._act)
        self._starts = 0  # of the coordinator
        # One of its own for each run, or it would go on with a job that is over.
        self._store = f"{log_dir}/job.db"
        if not request.coordinator.is_local:
            self._store = f"{Path(trust.far_folder).parent}/job-{time.strftime('%Y%m%d-%H%M%S')}.db"
        self._stopping = False
        self._sigterm_s: float | None = None
        self._late: list[str] = []  # hosts with islands that did not leave in time

    async def run(self) -> sv.Finish:
        """Run the job to its end."""
        for number, code in STOP_SIGNALS.items():
            self._loop.add_signal_handler(number, self._stop_signal, code)
        self._emit(
            Kind.LISTENING,
            address=self._address,
            job=self._request.job.name,
            log_dir=str(self._log_dir),
            metrics_port=0,
            authority=os.path.relpath(self._trust.folder),
            secure=True,
        )
        observer = Observer(
            self._address, self._observed, self._status, _at_once, 0, self._operator
        )
        observing: asyncio.Future[None] | None = None
        try:
            operator = self._trust.folder / "operator"
            with whereabouts.told(self._address, operator, operates=True):
                self._start_coordinator()
                await self._coordinator_answers()
                if not self._verdict.done():
                    observing = asyncio.ensure_future(observer.run())
                    self._feed(sv.Begin())
                verdict = await self._verdict
        finally:
            self._stopping = True
            if observing is not None:
                observing.cancel()
                await asyncio.gather(observing, return_exceptions=True)
            await observer.close()
            await asyncio.gather(*(far.end(KILL_AFTER_S) for far in self._fars.values()))
        self._emit(Kind.FINISHED, code=verdict.code, message=verdict.message)
        return verdict

    # --- the coordinator --------------------------------------------------------------------------

    def _start_coordinator(self) -> None:
        certs = str(self._trust.folder)
        if not self._request.coordinator.is_local:
            certs = self._trust.far_folder
        self._starts += 1
        self._fars[COORDINATOR] = Far(
            up_commands.coordinator(self._request, self._store, certs),
            self._log_dir / f"{COORDINATOR}.log",
            self._coordinator_line,
            self._coordinator_ended,
        )

    def _coordinator_line(self, line: str) -> None:
        """Its log has them all; where the page is, one wants to know."""
        _, found, page = line.partition("page and metrics: ")
        if found:
            place = self._request.coordinator
            there = "" if place.is_local else f" on {place.ssh} (ssh -L)"
            self._note(f"page and metrics: {page.strip()}{there}")

    def _coordinator_ended(self, far: Far) -> None:
        if self._stopping or self._verdict.done():
            return
        if self._starts > self._request.job.max_restarts or not self._fars.keys() - {COORDINATOR}:
            text = f"the coordinator has ended: {far.last_words}; log in {far.log}"
            self._verdict.set_result(sv.Finish(code=exit_codes.CANNOT_JOIN, message=text))
            return
        self._note(f"the coordinator has ended ({far.last_words}); it starts again in 1 s")
        self._loop.call_later(1.0, self._again)

    def _again(self) -> None:
        if not self._stopping:
            self._start_coordinator()

    async def _coordinator_answers(self) -> None:
        """Returns when it does, or the verdict is there."""
        deadline_s = self._loop.time() + COORDINATOR_S
        while not self._verdict.done():
            try:
                await find_leader(self._address, self._operator)
            except LauncherError as error:
                if self._loop.time() < deadline_s:
                    await asyncio.sleep(0.2)
                    continue
                far = self._fars[COORDINATOR]
                for finding in await why_not_joined(self._address, self._operator, error):
                    self._note(finding)
                raise LauncherError(
                    f"{error}; its log is {far.log}. Can this machine reach {self._address}? "
                    "See address and port in [coordinator]",
                    exit_codes.CANNOT_JOIN,
                ) from None
            return

    # --- events in --------------------------------------------------------------------------------

    def _ended(self, name: str, far: Far) -> None:
        code = far.code
        host = self._request.hosts[name]
        if code:
            self._note(f"{name}: its launcher has ended with {code}: {far.last_words}")
        if code == 255 and not host.is_local:
            self._note(f"{name}: to see whether it can be reached: {up_commands.ssh_try(host)}")
        self._emit(Kind.EXITED, name, pid=far.pid, code=code, signal=0, error="", log=str(far.log))
        is_void = code == exit_codes.CANNOT_JOIN and VOID in far.last_words
        if is_void and not self._left[name]:
            folder = up_commands.identity_folder(name, self._trust.fingerprint)
            self._note(
                f"{name}: leave it out of the job's file; or, to let it in again, remove "
                f"{folder} in its folder there"
            )
        left = how_they_left(self._left[name], islands_of(name, host))
        if code == TERMINATED and self._sigterm_s is not None:
            self._late.append(name)
        final = is_void or code in FINAL
        self._feed(sv.ChildExited(island=name, code=code, left=left, is_final=final))

    def _observed(self, event: Event) -> None:
        host = self._host_of.get(event.island)
        if host is not None and event.kind is Kind.JOINED:
            self._left[host].pop(event.island, None)
            self._feed(sv.Joined(island=host))
        if host is not None and event.kind is Kind.LEFT and event.text("reason") in WANTED:
            self._left[host][event.island] = WANTED[event.text("reason")]
        if event.kind is Kind.VIEW:
            self._supervisor.set_floor(1)
        if event.kind is Kind.STOPPING:
            self._feed(sv.JobStopped())
        self._write(event)

    def _status(self, status: pb.StatusReply) -> None:
        pass

    def _line(self, name: str, line: str) -> None:
        """Of what a launcher prints: its islands' lines, and what it does with them. What happens
        in the job, all launchers would tell."""
        label, bar, text = line.partition(" | ")
        island = label.partition(".")[0]
        if bar and self._host_of.get(island) == name:
            self._display.line(label, text)
            return
        words = line.split(" ", 2)
        if self._host_of.get(words[0]) != name:
            if not line.startswith(("atoll:", "Warning", "ssh:")):
                return
        elif len(words) < 2 or words[1] not in OWN_WORDS:
            return
        self._note(f"{name}: {line}")

    def _stop_signal(self, code: int) -> None:
        now_s = self._loop.time()
        if not self._fars.keys() - {COORDINATOR}:
            if not self._verdict.done():
                self._verdict.set_result(sv.Finish(code=code, message="stopped by the user"))
        elif code == STOP_SIGNALS[signal.SIGTERM] and self._sigterm_s is None:
            self._sigterm_s = now_s
            self._feed(sv.LeaveRequested(within_s=LEAVE_S))
        elif self._sigterm_s is None or now_s - self._sigterm_s > 1.0:
            self._feed(sv.StopRequested(exit_code=code))

    # --- actions out ------------------------------------------------------------------------------

    def _act(self, action: sv.Action) -> None:
        match action:
            case sv.Start(island=name):
                self._start(name, action.attempt)
            case sv.Restarting():
                self._emit(
                    Kind.RESTARTING, action.island, attempt=action.attempt, wait_s=action.wait_s
                )
            case sv.GaveUp():
                self._emit(Kind.GAVE_UP, action.island, reason=action.reason)
            case sv.Waiting(message=message):
                self._note(message)
            case sv.NoticeStop(message=message):
                self._note(f"stopping: {message}")
            case sv.Terminate(island=name):
                if self._sigterm_s is None:
                    self._fars[name].close_input()
                else:
                    self._fars[name].say("leave")
            case sv.Kill(island=name):
                self._fars[name].kill()
            case sv.Finish():
                if not self._verdict.done():
                    self._verdict.set_result(in_time(action, self._late))
            case _:
                assert_never(action)

    def _start(self, name: str, attempt: int) -> None:
        command = up_commands.launcher(
            self._request, name, self._trust.token(self._address, name), self._trust.fingerprint
        )
        far = Far(
            command,
            self._log_dir / f"{name}.log",
            lambda line: self._line(name, line),
            lambda far: self._ended(name, far),
        )
        self._fars[name] = far
        self._emit(Kind.STARTED, name, pid=0, attempt=attempt, log=str(far.log))

    def _note(self, message: str) -> None:
        self._emit(Kind.NOTE, message=message)

    def _emit(self, kind: Kind, island: str = "", **fields: Value) -> None:
        self._write(Event(kind=kind, time_s=time.time(), island=island, fields=fields))

    def _write(self, event: Event) -> None:
        if self._events is not None:
            self._events.write(event)
        self._display.event(event)


async def _at_once(event: Event) -> None:
    """The coordinator's events are held back for nothing."""
