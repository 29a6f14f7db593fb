"""What peers and the coordinator say to each other, as values. docs/design.md section 3.

The gRPC shell translates these from and to protobuf (`atoll.control.convert`); the machines and the
simulation know nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

PROTOCOL_VERSION = 1

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


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Epoch number and members by rank, oldest first. Epoch 0 with no members: none yet."""

    epoch: int = 0
    members: tuple[PeerInfo, ...] = ()

    @property
    def ids(self) -> tuple[PeerId, ...]:
        return tuple(member.id for member in self.members)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """After Welcome, once the engine listens. From here on the others are told of this peer."""

    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    peers: frozenset[PeerId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Holds the shared state that is current, or needs none: may be made a member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A member that now holds the shared state of its view and can be a donor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    reason: Departure


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


PeerMessage = (
    Register
    | Listening
    | Heartbeat
    | Linked
    | Ready
    | Holding
    | Fenced
    | Installed
    | Suspect
    | Leave
    | Report
)

# --- coordinator to peer --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    order: int
    secret: bytes
    heartbeat_s: float
    min_islands: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """Everybody who listens now, the receiver too. `holders`: a joiner's donors, if any."""

    peers: tuple[PeerInfo, ...]
    holders: frozenset[PeerId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    attempt: int
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Install:
    view: View
    kind: ChangeKind
    starts: Mapping[int, int] = field(default_factory=dict)
    holders: frozenset[PeerId] = frozenset()


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


CoordinatorMessage = Welcome | Peers | Fence | Install | Expelled | Refused | StopNotice | Heartbeat
