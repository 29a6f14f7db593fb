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
    LinkFigures,
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
    """reason: unreachable, reset, silent, protocol, bye, dropped or died."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProbed:
    """A Probe is over. None: it came to nothing."""

    peer: PeerId
    figures: LinkFigures | None


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
class AppDrain:
    """The island is to leave once its running round is over."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppReport:
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class AppMeasure:
    """The program wants all links measured anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppArrived:
    """What arrives over links is another part of what was measured of them than it should be.

    times: by peer, so many times as much.
    """

    times: Mapping[PeerId, float]


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
    | AppDrain
    | AppReport
    | AppMeasure
    | AppArrived
    | EngineProbed
    | Tick
)

# --- out ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    message: PeerMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """Give up the stream, if there is one, and open another to `coordinator` at `at_s`."""

    at_s: float
    coordinator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEngine:
    secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """Accept a link from `peer`. `endpoints`: where it listens, to redial a link that was cut."""

    peer: PeerId
    island: str
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detour:
    """By way of `relay`. `ticket`: 32 bytes that it knows, too."""

    relay: PeerId
    ticket: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Reach out for `peer` at any of `endpoints`; the first that works wins. With a detour these
    are the relay's."""

    peer: PeerId
    island: str
    endpoints: tuple[Endpoint, ...]
    detour: Detour | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """Bring two others together when one of them asks for the other, with this ticket. Empty: do
    not any more."""

    one: PeerId
    other: PeerId
    ticket: bytes


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
    topology: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Measure the link to `peer` with at most `burst_s` of filler; ends as EngineProbed, once."""

    peer: PeerId
    burst_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The peer's part in the job is over, and why."""

    error: AtollError


PeerAction = (
    Say
    | Reconnect
    | StartEngine
    | Expect
    | Dial
    | Carry
    | Drop
    | FenceEngine
    | InstallEngine
    | Probe
    | Ended
)
