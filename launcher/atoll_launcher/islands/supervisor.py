"""Which island to start, restart or stop, and when the launcher is finished: a pure state machine.

    waiting --Start--> running --exit 0--> finished
       ^                  |
       +--- back-off -----+--- no restart left ---> lost (by a signal) or failed (by its script)
                          +--- an operator's word -> left, or refused: it may not come back

Events go in with the time, actions come out; processes, clocks and signals are the shell's
(`atoll_launcher.islands.job`). Times are seconds of any one monotonic clock.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import assert_never

from atoll_launcher import exit_codes
from atoll_launcher.islands.supervisor_events import (
    Action,
    Begin,
    ChildExited,
    Event,
    Finish,
    GaveUp,
    JobStopped,
    Joined,
    Kill,
    LeaveRequested,
    NoticeStop,
    OthersPresent,
    PutOut,
    Restarting,
    Start,
    StopRequested,
    Terminate,
    Tick,
    Waiting,
)

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 30.0
# An island that ran for so long was well: its next crash begins with the short wait again.
HEALTHY_AFTER_S = 60.0
# Restarts are counted over ten minutes: an island that dies once an hour, as spot machines do, may
# run for weeks, and one that dies at every start is given up within a minute.
RESTART_WINDOW_S = 600.0
# All islands that fail alike within so short a time have a script that cannot start.
STARTUP_S = 2.0
# From the polite request to SIGKILL.
KILL_AFTER_S = 2.0
# What a shell calls the end by SIGTERM.
TERMINATED = 143
# How long a launcher that hosts the coordinator lets the islands of others finish: they are at most
# a round behind, and a round between machines takes seconds.
LINGER_S = 10.0


class State(enum.Enum):
    """Where an island's process is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    LOST = "lost"
    FAILED = "failed"
    LEFT = "left"
    """Asked to leave, or put out: it is not missed."""
    REFUSED = "refused"
    """The job does not want it any more."""


@dataclass(slots=True, kw_only=True)
class Island:
    """What the supervisor knows of one island."""

    name: str
    state: State = State.WAITING
    attempt: int = 0
    started_at_s: float = 0.0
    start_at_s: float = 0.0
    backoff_s: float = BACKOFF_FIRST_S
    restarts_at_s: list[float] = field(default_factory=list)
    has_joined: bool = False
    is_dismissed: bool = False
    put_out: PutOut | None = None
    kill_at_s: float = math.inf
    why: str = ""
    """It left, or may not come back."""
    first_failure: str | None = None


class Supervisor:
    """The islands of one launcher.

    `floor` is how many islands the job cannot go on without, whoever started them. `hosts`: the
    coordinator ends with this launcher.
    """

    def __init__(
        self,
        names: list[str],
        *,
        max_restarts: int,
        floor: int,
        hosts: bool = True,
        kill_after_s: float = KILL_AFTER_S,
    ) -> None:
        self.islands = {name: Island(name=name) for name in names}
        self._max_restarts = max_restarts
        self._floor = floor
        self._hosts = hosts
        self._kill_after_s = kill_after_s
        self._linger_until_s: float | None = None
        self._others = 0
        self._verdict: Finish | None = None  # set: everything is being stopped
        self._kill_at_s: float | None = None
        self._job_stopped = False
        self._finished = False
        self._leave_within_s: float | None = None  # set: all are leaving politely
        self._job_complete = False

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event at the time `now`; return what to do, in order."""
        if self._finished:
            return []
        match event:
            case Begin():
                actions = self._start_due(now)
            case ChildExited():
                actions = self._child_exited(event, now)
            case Joined():
                self.islands[event.island].has_joined = True
                actions = []
            case OthersPresent():
                self._others = event.count
                actions = self._check_floor(now)
            case JobStopped():
                actions = self._stopped_elsewhere(now)
            case StopRequested():
                actions = self._stop_requested(event, now)
            case PutOut():
                actions = self._put_out(event, now)
            case LeaveRequested():
                actions = self._leave_requested(event, now)
            case Tick():
                actions = self._start_due(now) + self._kill_late(now) + self._kill_due(now)
            case _:
                assert_never(event)
        actions += self._dismiss_late(now)
        return actions + self._finish_when_all_ended(now)

    def set_floor(self, floor: int) -> None:
        """From now on the job cannot go on without so many."""
        self._floor = floor

    def deadline_s(self) -> float | None:
        """Return the time at which a Tick is due, if any."""
        times = [i.start_at_s for i in self.islands.values() if i.state is State.WAITING]
        times += [i.kill_at_s for i in self._in(State.RUNNING)]
        times += [t for t in (self._kill_at_s, self._linger_until_s) if t is not None]
        return min((t for t in times if t < math.inf), default=None)

    def _in(self, *states: State) -> list[Island]:
        return [island for island in self.islands.values() if island.state in states]

    def _start_due(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for island in self._in(State.WAITING):
            if island.start_at_s <= now:
                island.state = State.RUNNING
                island.started_at_s = now
                actions.append(Start(island=island.name, attempt=island.attempt))
        return actions

    def _kill_late(self, now: float) -> list[Action]:
        late = [island for island in self._in(State.RUNNING) if island.kill_at_s <= now]
        for island in late:
            island.kill_at_s = math.inf
        return [Kill(island=island.name) for island in late]

    def _kill_due(self, now: float) -> list[Action]:
        if self._kill_at_s is None or now < self._kill_at_s:
            return []
        self._kill_at_s = None
        if self._leave_within_s is not None:
            text = f"not gone within {self._leave_within_s:g} s of SIGTERM; killed"
            self._verdict = Finish(code=TERMINATED, message=text)
        return [Kill(island=island.name) for island in self._in(State.RUNNING)]

    def _child_exited(self, event: ChildExited, now: float) -> list[Action]:
        island = self.islands[event.island]
        island.kill_at_s = math.inf
        if event.refused:
            return self._out(island, State.REFUSED, event.refused, now)
        if event.left:
            return self._out(island, State.LEFT, event.left, now)
        if island.put_out is not None:
            return self._out_by(island.put_out, now)
        if event.code == 0 and event.signal == 0:
            island.state = State.FINISHED
            self._job_complete |= island.has_joined
            return self._drop_waiting() if self._job_complete else []
        came_late = self._job_complete and not island.has_joined
        lost = event.signal or island.is_dismissed or came_late
        given_up = State.LOST if lost else State.FAILED
        if island.is_dismissed or self._verdict is not None or self._job_stopped:
            island.state = given_up
            return []
        if island.attempt == 0:
            island.first_failure = self._fingerprint(island, event, now)
        if self._script_cannot_start():
            island.state = given_up
            message = "all islands failed in the same way while they started; not tried again"
            return self._stop(
                Finish(code=exit_codes.WORKER_FAILED, message=message, shown=island.name), now
            )
        reason = "it has given up" if event.is_final else self._why_not_again(island, now)
        if reason:
            island.state = given_up
            return [GaveUp(island=island.name, reason=reason), *self._check_floor(now)]
        return [self._schedule(island, now)]

    def _put_out(self, event: PutOut, now: float) -> list[Action]:
        island = self.islands[event.island]
        match island.state:
            case State.RUNNING:
                island.put_out = event
                if not event.is_refused:
                    return [Kill(island=island.name)]
                island.kill_at_s = now + self._kill_after_s  # it hears so itself, and says it
                return []
            case State.WAITING:  # its process was quicker to end than the news to come
                return self._out_by(event, now)
            case _:
                return []

    def _out_by(self, event: PutOut, now: float) -> list[Action]:
        state = State.REFUSED if event.is_refused else State.LEFT
        return self._out(self.islands[event.island], state, event.why, now)

    def _out(self, island: Island, state: State, why: str, now: float) -> list[Action]:
        island.state, island.why = state, why
        if self._verdict is not None:
            return []
        return [GaveUp(island=island.name, reason=why), *self._check_floor(now)]

    def _leave_requested(self, event: LeaveRequested, now: float) -> list[Action]:
        if self._verdict is not None:
            return []
        self._leave_within_s = event.within_s
        stopping = self._stop(Finish(code=exit_codes.OK, message="left politely"), now)
        self._kill_at_s = now + event.within_s
        note = f"SIGTERM: the islands leave, within {event.within_s:g} s"
        return [Waiting(message=note), *stopping[1:]]

    def _fingerprint(self, island: Island, event: ChildExited, now: float) -> str | None:
        """Return what the islands' first failures are compared by; None: it was no bad start.

        A traceback before the island has joined counts however late it came, for importing torch
        alone can take longer than STARTUP_S. A signal is something that others do to a process.
        """
        early = now - island.started_at_s <= STARTUP_S
        if event.signal or island.has_joined or not (early or event.error):
            return None
        return f"{event.code} {event.error}"

    def _script_cannot_start(self) -> bool:
        failures = {island.first_failure for island in self.islands.values()}
        return len(failures) == 1 and None not in failures

    def _why_not_again(self, island: Island, now: float) -> str:
        if self._job_complete:
            return "the job is complete"
        if self._max_restarts == 0:
            return "restarts are off"
        recent = [t for t in island.restarts_at_s if now - t < RESTART_WINDOW_S]
        island.restarts_at_s = recent
        if len(recent) >= self._max_restarts:
            return f"{len(recent)} restarts within {RESTART_WINDOW_S / 60:.0f} minutes"
        return ""

    def _schedule(self, island: Island, now: float) -> Restarting:
        if now - island.started_at_s >= HEALTHY_AFTER_S:
            island.backoff_s = BACKOFF_FIRST_S
        wait_s = island.backoff_s
        island.state = State.WAITING
        island.attempt += 1
        island.has_joined = False
        island.start_at_s = now + wait_s
        island.restarts_at_s.append(now)
        island.backoff_s = min(2 * island.backoff_s, BACKOFF_MAX_S)
        return Restarting(island=island.name, attempt=island.attempt, wait_s=wait_s)

    def _drop_waiting(self) -> list[Action]:
        """Give up islands in back-off: there is nobody left to fetch the job's state from."""
        actions: list[Action] = []
        for island in self._in(State.WAITING):
            island.state = State.LOST
            actions.append(GaveUp(island=island.name, reason="the job is complete"))
        return actions

    def _dismiss_late(self, now: float) -> list[Action]:
        """End islands that still wait to join a complete job: nobody will come to take them in."""
        late = self._in(State.RUNNING)
        is_over = self._job_complete and not self._others
        if not is_over or self._verdict or self._job_stopped:
            return []
        if any(island.has_joined or island.is_dismissed for island in late):
            return []
        actions: list[Action] = []
        for island in late:
            island.is_dismissed = True
            self._kill_at_s = now + self._kill_after_s
            actions.append(GaveUp(island=island.name, reason="the job is complete"))
            actions.append(Terminate(island=island.name))
        return actions

    def _check_floor(self, now: float) -> list[Action]:
        given_up = self._in(State.LOST, State.FAILED, State.LEFT, State.REFUSED)
        left = len(self.islands) - len(given_up) + self._others
        if not given_up or left >= self._floor or self._verdict or self._job_complete:
            return []
        message = f"{left} islands are left, and the job needs {self._floor}"
        return self._stop(
            Finish(code=exit_codes.BELOW_MINIMUM, message=message, shown=given_up[-1].name), now
        )

    def _stopped_elsewhere(self, now: float) -> list[Action]:
        if self._job_stopped or self._verdict is not None:
            return []
        self._job_stopped = True
        for island in self._in(State.WAITING):
            island.state = State.LOST
        # The islands were told too: they need time for the round that they are in, not for ever.
        self._kill_at_s = now + 5 * self._kill_after_s
        return []

    def _stop_requested(self, event: StopRequested, now: float) -> list[Action]:
        if self._verdict is None:
            return self._stop(Finish(code=event.exit_code, message="stopped by the user"), now)
        if self._leave_within_s is not None:
            self._leave_within_s = None
            self._verdict = Finish(code=event.exit_code, message="stopped while leaving")
        self._kill_at_s = now
        return self._kill_due(now)

    def _stop(self, verdict: Finish, now: float) -> list[Action]:
        self._verdict = verdict
        self._kill_at_s = now + self._kill_after_s
        for island in self._in(State.WAITING):
            island.state = State.LOST
        running = self._in(State.RUNNING)
        return [
            NoticeStop(message=verdict.message),
            *(Terminate(island=island.name) for island in running),
        ]

    def _finish_when_all_ended(self, now: float) -> list[Action]:
        if self._in(State.RUNNING, State.WAITING):
            return []
        if self._verdict is None and self._hosts and self._others and not self._job_stopped:
            if self._linger_until_s is None:
                # With no island finished here, the job is theirs now, however long it takes.
                is_done = bool(self._in(State.FINISHED))
                self._linger_until_s = now + (LINGER_S if is_done else math.inf)
                time = f"up to {LINGER_S:.0f} s " if is_done else ""
                return [Waiting(message=f"waiting {time}for the islands of other launchers")]
            if now < self._linger_until_s:
                return []
        self._finished = True
        self._kill_at_s = self._linger_until_s = None
        return [self._verdict or self._natural_end()]

    def _natural_end(self) -> Finish:
        """Judge a run that was not stopped: a loss is what atoll is there for, a failure is not."""
        failed = [island.name for island in self._in(State.FAILED)]
        finished, total = len(self._in(State.FINISHED)), len(self.islands)
        refused = self._in(State.REFUSED)  # it says more than that the job was stopped afterwards
        if self._job_stopped and finished + len(refused) < total:
            message = f"the job was stopped; {finished} of {total} islands had finished"
            return Finish(code=exit_codes.WORKER_FAILED, message=message)
        if failed:
            message = f"{' and '.join(failed)} failed; {finished} of {total} islands finished"
            return Finish(code=exit_codes.WORKER_FAILED, message=message, shown=failed[-1])
        if refused:
            names = " and ".join(island.name for island in refused)
            message = f"{names} may not come back: {refused[0].why}"
            return Finish(code=exit_codes.CANNOT_JOIN, message=message)
        if left := len(self._in(State.LEFT)):
            message = f"{finished} of {total} islands finished, {left} left when asked to"
            return Finish(code=exit_codes.OK, message=message)
        if finished == 0:
            return Finish(code=exit_codes.BELOW_MINIMUM, message="no island finished")
        return Finish(code=exit_codes.OK, message=f"{finished} of {total} islands finished")
