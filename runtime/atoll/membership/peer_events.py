"""What goes into a peer's machine and what comes out of it, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoll.errors import AtollError
from atoll.membership.messages import (
    ChangeKind,
    CoordinatorMessage,
    Counters,
    Departure,
    Endpoint,
    PeerId,
    PeerMessage,
    Report,
    View,
)

# --- in: the stream to the coordinator ------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamUp:
    """A stream was opened; nothing has been said on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLost:
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    message: CoordinatorMessage


# --- in: the engine -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStarted:
    """The answer to StartEngine: where the others reach it."""

    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUp:
    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkDown:
    """reason: unreachable, reset, silent, protocol, bye or dropped."""

    peer: PeerId
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFenced:
    attempt: int
    epoch: int
    progress: Mapping[int, Counters]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInstalled:
    epoch: int
    member: bool


# --- in: the session ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AppReady:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class AppHolding:
    """It holds the state of view `epoch`. In another view it counts for nothing."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppLeave:
    reason: Departure


@dataclass(frozen=True, slots=True, kw_only=True)
class AppReport:
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed. Due at least every 100 ms."""


PeerEvent = (
    StreamUp
    | StreamLost
    | Heard
    | EngineStarted
    | LinkUp
    | LinkDown
    | EngineFenced
    | EngineInstalled
    | AppReady
    | AppHolding
    | AppLeave
    | AppReport
    | Tick
)

# --- out ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    message: PeerMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """Give up the stream, if there is one, and open another at `at_s`."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEngine:
    secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    peer: PeerId
    endpoint: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceEngine:
    attempt: int
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallEngine:
    view: View
    starts: Mapping[int, int]
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The peer's part in the job is over, and why."""

    error: AtollError


PeerAction = (
    Say | Reconnect | StartEngine | Expect | Dial | Drop | FenceEngine | InstallEngine | Ended
)
