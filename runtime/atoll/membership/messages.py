"""What peers and the coordinator say to each other, as values. docs/design.md section 3.

The gRPC shell translates these from and to protobuf (`atoll.control.convert`); the machines and the
simulation know nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

PROTOCOL_VERSION = 2

PeerId = bytes
"""16 random bytes."""


class ChangeKind(enum.Enum):
    """How members go from one view to the next."""

    DRAIN = "drain"
    ABORT = "abort"


class Departure(enum.Enum):
    """Why a peer is no longer there. A closed list: logs, status and metrics use these names."""

    FINISHED = "finished"
    DRAINED = "drained"
    CRASHED = "crashed"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    PROTOCOL = "protocol"
    STOPPED = "stopped"
    SHARD_LOST = "shard_lost"
    """Another shard of its island was lost, or has left: an island goes as a whole."""
    INCOMPLETE = "incomplete"
    """Other shards of its island never came."""
    REVOKED = "revoked"
    """An operator has declared its certificate void."""
    KILLED = "killed"
    """An operator has put it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """A registered peer. `order` counts registrations: a younger peer dials an older one."""

    id: PeerId
    island: str
    order: int
    endpoints: tuple[Endpoint, ...]
    shard: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Epoch number and islands by rank, oldest first. Epoch 0 with no members: none yet.

    `members`: the peers, island after island, each island's by shard.
    """

    epoch: int = 0
    members: tuple[PeerInfo, ...] = ()

    @property
    def ids(self) -> tuple[PeerId, ...]:
        return tuple(member.id for member in self.members)

    @property
    def islands(self) -> tuple[str, ...]:
        """Their names, by rank."""
        return tuple(member.island for member in self.members if member.shard == 0)

    def ring(self, shard: int) -> View:
        """The view as the peers of one shard index see it: one member of each island."""
        return View(
            epoch=self.epoch,
            members=tuple(member for member in self.members if member.shard == shard),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One channel's ops since the beginning of the run: started >= done >= committed."""

    started: int = 0
    done: int = 0
    committed: int = 0


# --- peer to coordinator --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    protocol_version: int = PROTOCOL_VERSION
    software_version: str
    job: str
    peer: PeerId
    island: str
    installed_epoch: int = 0
    shard: int = 0
    shards: int = 1
    """How many peers its island has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """After Welcome, once the engine listens. From here on the others are told of this peer."""

    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """All with whom it has a link: the first that it says of that on a stream."""

    peers: frozenset[PeerId]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedMore:
    """What has changed since this peer last said with whom it is linked, on the same stream."""

    added: frozenset[PeerId] = frozenset()
    removed: frozenset[PeerId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Holds the shared state that is current, or needs none: may be made a member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A member that now holds the shared state of its view and can be a donor."""


UNASKED = 0
"""The attempt of a member that froze by itself, certain that another one's process has died. It is
worth as much as an answer as long as the newest view is the one that it says it has installed:
nothing that could wake it is under way then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """attempt: 0 for who froze before it was asked (`UNASKED`)."""

    attempt: int
    epoch: int
    progress: Mapping[int, Counters]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    peer: PeerId
    reason: Departure
    message: str = ""
    certain: bool = False
    """The kernel of the machine that both are on says that its process has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """It has dialled a peer for as long as it may, and there is no link. `relay`: through whom."""

    peer: PeerId
    relay: PeerId = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    reason: Departure


NOTICES = (
    "checkpoint",
    "checkpoint_failed",
    "checkpoint_damaged",
    "restored",
    "healed",
    "layout",
    "recovery",
    "throughput",
)
"""Kinds of notices that the coordinator makes events of."""

MAX_NOTICE = 1000
"""Characters of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """For people and metrics, not for the protocol. Units are in the names; NaN is unknown."""

    round: int = 0
    loss: float = float("nan")
    tokens: int = 0
    tokens_per_s: float = 0.0
    sync_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    digest: str = ""
    phase: str = "joining"
    validation_loss: float = float("nan")
    contributed: bool = False
    metrics_port: int = 0
    epoch: int = 0
    notice_number: int = 0  # of the last notice: told once by the coordinator
    notice_kind: str = ""
    notice: str = ""
    round_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFigures:
    """What was measured of a link: from one member to another, and back."""

    rate_bytes_per_s: float
    rtt_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What this peer knows of the links from itself, after measurement `number`."""

    number: int
    figures: Mapping[PeerId, LinkFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRequest:
    """This peer's program wants all links measured anew."""


PeerMessage = (
    Register
    | Listening
    | Heartbeat
    | Linked
    | LinkedMore
    | Ready
    | Holding
    | Fenced
    | Installed
    | Suspect
    | Unreached
    | Leave
    | Report
    | Links
    | MeasureRequest
)

# --- coordinator to peer --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    order: int
    secret: bytes
    heartbeat_s: float
    min_islands: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """Two peers that cannot reach each other, and the one that carries bytes between them."""

    one: PeerId
    other: PeerId
    relay: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Everybody who listens now, the receiver too. `holders`: a joiner's donors, if any."""

    peers: tuple[PeerInfo, ...]
    holders: frozenset[PeerId] = frozenset()
    relayed: tuple[Relayed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    attempt: int
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Install:
    """The view, and what concerns the ring of the peer that it is sent to."""

    view: View
    kind: ChangeKind
    starts: Mapping[int, int] = field(default_factory=dict)
    holders: frozenset[PeerId] = frozenset()
    topology: bytes = b""  # of the ring's links (atoll.membership.topology); empty: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Measure, in the slots of a tournament, the links that a member of `fresh` is an end of."""

    number: int
    epoch: int
    fresh: frozenset[PeerId]
    burst_s: float  # of filler on a link
    slot_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expelled:
    reason: Departure
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopNotice:
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNotice:
    """The receiver's island is to leave once its running round is over."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLeader:
    """Another coordinator decides now: the one at `leader` (HOST:PORT), or nobody knows which."""

    leader: str
    message: str


CoordinatorMessage = (
    Welcome
    | Peers
    | Fence
    | Install
    | Measure
    | Expelled
    | Refused
    | StopNotice
    | DrainNotice
    | NotLeader
    | Heartbeat
)
