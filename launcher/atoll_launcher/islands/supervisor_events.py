"""What the supervisor is told, and what it tells the shell to do. Values only; any thread."""

from __future__ import annotations

from dataclasses import dataclass

# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Start all islands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildExited:
    """An island's process ended, by `signal` if not 0. `error`: its traceback's last line."""

    island: str
    code: int
    signal: int = 0
    error: str = ""
    left: str = ""
    """It had been asked to leave the job, and did, or was put out by an operator: how."""
    refused: str = ""
    """The job does not want it any more: why."""
    is_final: bool = False
    """It has said that trying again cannot help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The coordinator made an island of this launcher a member of a view."""

    island: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OthersPresent:
    """How many islands that are not this launcher's take part in the job."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStopped:
    """The job was stopped elsewhere: the islands leave by themselves, and soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """The user wants to stop. The second time: at once."""

    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOut:
    """An operator has put an island out of the job; its process is to end, and for good. `why`: it
    was killed, or so. `is_refused`: it could not come back if it wanted to."""

    island: str
    why: str
    is_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveRequested:
    """The islands are to leave politely, within a time."""

    within_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""


Event = (
    Begin
    | ChildExited
    | Joined
    | OthersPresent
    | JobStopped
    | StopRequested
    | PutOut
    | LeaveRequested
    | Tick
)


# --- actions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    island: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarting:
    """An announcement: `island` starts again in `wait_s`; it is restart number `attempt`."""

    island: str
    attempt: int
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp:
    """An announcement: `island` is not started again."""

    island: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An announcement: nothing runs here, but the coordinator stays for the islands of others."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeStop:
    """Tell the job that it stops."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate:
    island: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    island: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """All processes have ended. `shown` is an island whose failure is worth showing, if any."""

    code: int
    message: str
    shown: str = ""


Action = Start | Restarting | GaveUp | Waiting | NoticeStop | Terminate | Kill | Finish
