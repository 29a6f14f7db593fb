"""What goes into the coordinator's machine and what comes out of it, as values.

A stream is a peer's connection to the coordinator, numbered by the shell and never reused. The
shell reports each stream's end exactly once, also when the machine closed it, and nothing of it
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.membership.messages import (
    CoordinatorMessage,
    Departure,
    Heartbeat,
    Measure,
    PeerId,
    PeerInfo,
    PeerMessage,
    Peers,
    Relayed,
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
    restored_grace_s: float = 12.0  # after a restart: a peer may notice late that it must come back
    suspicion_settle_s: float = 0.25  # for the other members to say what they see
    fence_timeout_s: float = 5.0
    form_settle_s: float = 0.2  # for those that are just about to be ready
    form_patience_s: float = 2.0  # for those that listen but are not ready
    join_timeout_s: float = 60.0  # for a joiner to link with all members
    shards_timeout_s: float = 60.0  # from an island's first shard to its last
    leave_patience_s: float = 5.0  # for an island's other shards to leave when one does
    stall_s: float = 2.0  # a longer gap between two calls is the coordinator's own pause
    measure_settle_s: float = 1.0  # from a view to measuring its links
    measure_slot_s: float = 0.25  # for a pair of members, at least
    measure_long_slot_s: float = 1.0  # and at most, where slots are few
    topology_interval_s: float = 10.0  # between views that only tell new figures


# --- in -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    stream: int
    message: PeerMessage
    also: tuple[PeerMessage, ...] = ()
    """Said in the same breath, and taken in before anything follows from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLost:
    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed. Due at least every 100 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeem:
    """Somebody shows a good token to have a key signed. `token`: its id; `key`: a digest of what is
    to be signed; times are Unix time. `CoordinatorMachine.redeemed_by` says whose the token is."""

    token: str
    key: str
    expires_s: float
    unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """Certificates of `name` made until `unix_s` are void. `islands`: those that use one now."""

    name: str
    islands: frozenset[str]
    unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequested:
    """An operator wants an island of this name, which is there, to leave politely."""

    island: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KillRequested:
    """An operator wants an island of this name, which is there, out at once."""

    island: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRequested:
    """An operator wants all links measured anew."""


CoordinatorEvent = (
    Received
    | StreamLost
    | Tick
    | StopRequested
    | DrainRequested
    | KillRequested
    | MeasureRequested
    | Redeem
    | Revoke
)

# --- out ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Why an island leaves: how the first of its shards departed."""

    reason: Departure
    message: str
    shard: PeerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a restarted coordinator needs to know."""

    job: str
    secret: bytes
    next_order: int
    next_event: int
    attempt: int
    pending: bool  # a change of view was under way
    issued: tuple[Issued, ...]  # from the last view that all members have installed
    holders: frozenset[PeerId]
    state_epoch: int  # the view in which the shared state began
    trained: bool  # some round has committed
    complete: bool  # the last members finished
    peers: tuple[PeerInfo, ...]
    islands: tuple[str, ...]  # that have been members, the latest last
    shards: int = 1  # of every island; 0: nobody has said
    ends: tuple[End, ...] = ()  # of islands of which a part is still there
    held_back: frozenset[PeerId] = frozenset()  # of an issued view, and outside again
    used_tokens: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """By id: when it expires (Unix time), and for which key it was used."""
    revoked: Mapping[str, float] = field(default_factory=dict)
    """By the name in certificates: those made until then (Unix time) are void."""
    relayed: tuple[Relayed, ...] = ()


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

    kind: joined, left, draining, view, round, parity, state_lost, stopping, revoked, relayed, or
    one of `messages.NOTICES`.
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


def decides(action: CoordinatorAction) -> bool:
    """Whether a peer does something for good because of it. A coordinator that does not lead any
    more, and does not know yet, must not: before such an action it asks its store, unless it has
    just written there."""
    harmless = Peers | Heartbeat | Measure
    return isinstance(action, Send) and not isinstance(action.message, harmless)


# --- asked ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    info: PeerInfo
    state: str  # registered, ready, member, leaving
    heard_ago_s: float
    connected: bool
    report: Report | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Departed:
    """How an island left, the last time that it did."""

    reason: Departure
    message: str
    at_s: float


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
    departures: Mapping[str, int]  # of islands
    islands: tuple[str, ...]
    shards: int
    departed: Mapping[str, Departed]
    """By island, the latest last, as far as this coordinator has seen it."""
    relayed: tuple[Relayed, ...] = ()
    unreached: frozenset[PeerId] = frozenset()
    """Whom some other peer has dialled in vain."""
