"""What goes into the coordinator's machine and what comes out of it, as values.

A stream is a peer's connection to the coordinator, numbered by the shell and never reused. The
shell reports each stream's end exactly once, also when the machine closed it, and nothing of it
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoll.membership.messages import (
    CoordinatorMessage,
    Departure,
    PeerId,
    PeerInfo,
    PeerMessage,
    Report,
)
from atoll.membership.starts import Issued


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorOptions:
    """How long the coordinator waits, and for whom."""

    job: str
    min_islands: int = 1  # gates the first view, or one after all members were gone
    heartbeat_s: float = 1.0
    heartbeat_timeout_s: float = 10.0  # nothing heard for so long: silent
    reconnect_grace_s: float = 2.0  # a broken stream alone may be the coordinator's own network
    suspicion_settle_s: float = 0.25  # for the other members to say what they see
    fence_timeout_s: float = 5.0
    form_settle_s: float = 0.2  # for those that are just about to be ready
    form_patience_s: float = 2.0  # for those that listen but are not ready
    join_timeout_s: float = 60.0  # for a joiner to link with all members
    stall_s: float = 2.0  # a longer gap between two calls is the coordinator's own pause


# --- in -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    stream: int
    message: PeerMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLost:
    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed. Due at least every 100 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    message: str


CoordinatorEvent = Received | StreamLost | Tick | StopRequested

# --- out ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a restarted coordinator needs to know."""

    job: str
    secret: bytes
    next_order: int
    attempt: int
    pending: bool  # a change of view was under way
    issued: tuple[Issued, ...]  # from the last view that all members have installed
    holders: frozenset[PeerId]
    state_epoch: int  # the view in which the shared state began
    complete: bool  # the last members finished
    peers: tuple[PeerInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    stream: int
    message: CoordinatorMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """To be durable before any later action is carried out."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Something that people want to know.

    kind: joined, left, view, round, parity, state_lost, stopping.
    """

    number: int
    at_s: float
    kind: str
    message: str
    island: str = ""
    peer: PeerId = b""
    epoch: int = 0
    round: int = 0
    loss: float = float("nan")
    departure: Departure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    event: JobEvent


CoordinatorAction = Send | Close | Persist | Tell

# --- asked ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    info: PeerInfo
    state: str  # registered, ready, member, leaving
    heard_ago_s: float
    connected: bool
    report: Report | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    job: str
    epoch: int
    members: tuple[PeerId, ...]
    peers: tuple[PeerStatus, ...]
    round: int
    loss: float
    parity_failures: int
    min_islands: int
    view_changes: Mapping[str, int]
    departures: Mapping[str, int]
