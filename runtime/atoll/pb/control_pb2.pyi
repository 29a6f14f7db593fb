from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChangeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_UNSPECIFIED: _ClassVar[ChangeKind]
    CHANGE_DRAIN: _ClassVar[ChangeKind]
    CHANGE_ABORT: _ClassVar[ChangeKind]

class Departure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPARTURE_UNSPECIFIED: _ClassVar[Departure]
    DEPARTURE_FINISHED: _ClassVar[Departure]
    DEPARTURE_DRAINED: _ClassVar[Departure]
    DEPARTURE_CRASHED: _ClassVar[Departure]
    DEPARTURE_SILENT: _ClassVar[Departure]
    DEPARTURE_UNREACHABLE: _ClassVar[Departure]
    DEPARTURE_PROTOCOL: _ClassVar[Departure]
    DEPARTURE_STOPPED: _ClassVar[Departure]
    DEPARTURE_SHARD_LOST: _ClassVar[Departure]
    DEPARTURE_INCOMPLETE: _ClassVar[Departure]
    DEPARTURE_REVOKED: _ClassVar[Departure]
    DEPARTURE_KILLED: _ClassVar[Departure]
CHANGE_UNSPECIFIED: ChangeKind
CHANGE_DRAIN: ChangeKind
CHANGE_ABORT: ChangeKind
DEPARTURE_UNSPECIFIED: Departure
DEPARTURE_FINISHED: Departure
DEPARTURE_DRAINED: Departure
DEPARTURE_CRASHED: Departure
DEPARTURE_SILENT: Departure
DEPARTURE_UNREACHABLE: Departure
DEPARTURE_PROTOCOL: Departure
DEPARTURE_STOPPED: Departure
DEPARTURE_SHARD_LOST: Departure
DEPARTURE_INCOMPLETE: Departure
DEPARTURE_REVOKED: Departure
DEPARTURE_KILLED: Departure

class EnrollRequest(_message.Message):
    __slots__ = ("token", "island", "request")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    token: str
    island: str
    request: bytes
    def __init__(self, token: _Optional[str] = ..., island: _Optional[str] = ..., request: _Optional[bytes] = ...) -> None: ...

class EnrollReply(_message.Message):
    __slots__ = ("certificate", "authorities")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    authorities: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., authorities: _Optional[bytes] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RevokeReply(_message.Message):
    __slots__ = ("islands",)
    ISLANDS_FIELD_NUMBER: _ClassVar[int]
    islands: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, islands: _Optional[_Iterable[str]] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("host", "port")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class PeerInfo(_message.Message):
    __slots__ = ("id", "island", "order", "endpoints", "shard")
    ID_FIELD_NUMBER: _ClassVar[int]
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    island: str
    order: int
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    shard: int
    def __init__(self, id: _Optional[bytes] = ..., island: _Optional[str] = ..., order: _Optional[int] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., shard: _Optional[int] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("epoch", "members")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    members: _containers.RepeatedCompositeFieldContainer[PeerInfo]
    def __init__(self, epoch: _Optional[int] = ..., members: _Optional[_Iterable[_Union[PeerInfo, _Mapping]]] = ...) -> None: ...

class ChannelProgress(_message.Message):
    __slots__ = ("channel", "started", "done", "committed")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    channel: int
    started: int
    done: int
    committed: int
    def __init__(self, channel: _Optional[int] = ..., started: _Optional[int] = ..., done: _Optional[int] = ..., committed: _Optional[int] = ...) -> None: ...

class ChannelStart(_message.Message):
    __slots__ = ("channel", "sequence")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    channel: int
    sequence: int
    def __init__(self, channel: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("protocol_version", "software_version", "job", "peer_id", "island", "installed_epoch", "shard", "shards")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    software_version: str
    job: str
    peer_id: bytes
    island: str
    installed_epoch: int
    shard: int
    shards: int
    def __init__(self, protocol_version: _Optional[int] = ..., software_version: _Optional[str] = ..., job: _Optional[str] = ..., peer_id: _Optional[bytes] = ..., island: _Optional[str] = ..., installed_epoch: _Optional[int] = ..., shard: _Optional[int] = ..., shards: _Optional[int] = ...) -> None: ...

class Listening(_message.Message):
    __slots__ = ("endpoints",)
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    def __init__(self, endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Linked(_message.Message):
    __slots__ = ("peer_ids",)
    PEER_IDS_FIELD_NUMBER: _ClassVar[int]
    peer_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, peer_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LinkedMore(_message.Message):
    __slots__ = ("added", "removed")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    added: _containers.RepeatedScalarFieldContainer[bytes]
    removed: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, added: _Optional[_Iterable[bytes]] = ..., removed: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Holding(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FencedReply(_message.Message):
    __slots__ = ("attempt", "epoch", "progress")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    epoch: int
    progress: _containers.RepeatedCompositeFieldContainer[ChannelProgress]
    def __init__(self, attempt: _Optional[int] = ..., epoch: _Optional[int] = ..., progress: _Optional[_Iterable[_Union[ChannelProgress, _Mapping]]] = ...) -> None: ...

class InstalledReply(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Suspect(_message.Message):
    __slots__ = ("peer_id", "reason", "message", "certain")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CERTAIN_FIELD_NUMBER: _ClassVar[int]
    peer_id: bytes
    reason: Departure
    message: str
    certain: bool
    def __init__(self, peer_id: _Optional[bytes] = ..., reason: _Optional[_Union[Departure, str]] = ..., message: _Optional[str] = ..., certain: bool = ...) -> None: ...

class Unreached(_message.Message):
    __slots__ = ("peer_id", "relay")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    peer_id: bytes
    relay: bytes
    def __init__(self, peer_id: _Optional[bytes] = ..., relay: _Optional[bytes] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: Departure
    def __init__(self, reason: _Optional[_Union[Departure, str]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("round", "loss", "tokens", "tokens_per_s", "sync_s", "sent_bytes", "received_bytes", "digest", "phase", "validation_loss", "contributed", "metrics_port", "epoch", "notice_number", "notice_kind", "notice", "round_s")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    SYNC_S_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTED_FIELD_NUMBER: _ClassVar[int]
    METRICS_PORT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NOTICE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    NOTICE_KIND_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    ROUND_S_FIELD_NUMBER: _ClassVar[int]
    round: int
    loss: float
    tokens: int
    tokens_per_s: float
    sync_s: float
    sent_bytes: int
    received_bytes: int
    digest: str
    phase: str
    validation_loss: float
    contributed: bool
    metrics_port: int
    epoch: int
    notice_number: int
    notice_kind: str
    notice: str
    round_s: float
    def __init__(self, round: _Optional[int] = ..., loss: _Optional[float] = ..., tokens: _Optional[int] = ..., tokens_per_s: _Optional[float] = ..., sync_s: _Optional[float] = ..., sent_bytes: _Optional[int] = ..., received_bytes: _Optional[int] = ..., digest: _Optional[str] = ..., phase: _Optional[str] = ..., validation_loss: _Optional[float] = ..., contributed: bool = ..., metrics_port: _Optional[int] = ..., epoch: _Optional[int] = ..., notice_number: _Optional[int] = ..., notice_kind: _Optional[str] = ..., notice: _Optional[str] = ..., round_s: _Optional[float] = ...) -> None: ...

class LinkFigures(_message.Message):
    __slots__ = ("peer_id", "rate_bytes_per_s", "rtt_s")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    RATE_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    RTT_S_FIELD_NUMBER: _ClassVar[int]
    peer_id: bytes
    rate_bytes_per_s: float
    rtt_s: float
    def __init__(self, peer_id: _Optional[bytes] = ..., rate_bytes_per_s: _Optional[float] = ..., rtt_s: _Optional[float] = ...) -> None: ...

class Links(_message.Message):
    __slots__ = ("number", "figures")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    number: int
    figures: _containers.RepeatedCompositeFieldContainer[LinkFigures]
    def __init__(self, number: _Optional[int] = ..., figures: _Optional[_Iterable[_Union[LinkFigures, _Mapping]]] = ...) -> None: ...

class MeasureRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeerMessage(_message.Message):
    __slots__ = ("register", "heartbeat", "linked", "ready", "fenced", "installed", "suspect", "leave", "report", "listening", "holding", "links", "measure_request", "linked_more", "unreached", "also")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    LINKED_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    LISTENING_FIELD_NUMBER: _ClassVar[int]
    HOLDING_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    MEASURE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    LINKED_MORE_FIELD_NUMBER: _ClassVar[int]
    UNREACHED_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    register: Register
    heartbeat: Heartbeat
    linked: Linked
    ready: Ready
    fenced: FencedReply
    installed: InstalledReply
    suspect: Suspect
    leave: Leave
    report: Report
    listening: Listening
    holding: Holding
    links: Links
    measure_request: MeasureRequest
    linked_more: LinkedMore
    unreached: Unreached
    also: _containers.RepeatedCompositeFieldContainer[PeerMessage]
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., linked: _Optional[_Union[Linked, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., fenced: _Optional[_Union[FencedReply, _Mapping]] = ..., installed: _Optional[_Union[InstalledReply, _Mapping]] = ..., suspect: _Optional[_Union[Suspect, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., listening: _Optional[_Union[Listening, _Mapping]] = ..., holding: _Optional[_Union[Holding, _Mapping]] = ..., links: _Optional[_Union[Links, _Mapping]] = ..., measure_request: _Optional[_Union[MeasureRequest, _Mapping]] = ..., linked_more: _Optional[_Union[LinkedMore, _Mapping]] = ..., unreached: _Optional[_Union[Unreached, _Mapping]] = ..., also: _Optional[_Iterable[_Union[PeerMessage, _Mapping]]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("order", "secret", "heartbeat_s", "min_islands")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    MIN_ISLANDS_FIELD_NUMBER: _ClassVar[int]
    order: int
    secret: bytes
    heartbeat_s: float
    min_islands: int
    def __init__(self, order: _Optional[int] = ..., secret: _Optional[bytes] = ..., heartbeat_s: _Optional[float] = ..., min_islands: _Optional[int] = ...) -> None: ...

class Relayed(_message.Message):
    __slots__ = ("one", "other", "relay")
    ONE_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    one: bytes
    other: bytes
    relay: bytes
    def __init__(self, one: _Optional[bytes] = ..., other: _Optional[bytes] = ..., relay: _Optional[bytes] = ...) -> None: ...

class Peers(_message.Message):
    __slots__ = ("peers", "holders", "relayed")
    PEERS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[PeerInfo]
    holders: _containers.RepeatedScalarFieldContainer[bytes]
    relayed: _containers.RepeatedCompositeFieldContainer[Relayed]
    def __init__(self, peers: _Optional[_Iterable[_Union[PeerInfo, _Mapping]]] = ..., holders: _Optional[_Iterable[bytes]] = ..., relayed: _Optional[_Iterable[_Union[Relayed, _Mapping]]] = ...) -> None: ...

class PeersChange(_message.Message):
    __slots__ = ("gone", "peers", "holders_gone", "holders", "relayed")
    GONE_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_GONE_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    gone: _containers.RepeatedScalarFieldContainer[bytes]
    peers: _containers.RepeatedCompositeFieldContainer[PeerInfo]
    holders_gone: _containers.RepeatedScalarFieldContainer[bytes]
    holders: _containers.RepeatedScalarFieldContainer[bytes]
    relayed: _containers.RepeatedCompositeFieldContainer[Relayed]
    def __init__(self, gone: _Optional[_Iterable[bytes]] = ..., peers: _Optional[_Iterable[_Union[PeerInfo, _Mapping]]] = ..., holders_gone: _Optional[_Iterable[bytes]] = ..., holders: _Optional[_Iterable[bytes]] = ..., relayed: _Optional[_Iterable[_Union[Relayed, _Mapping]]] = ...) -> None: ...

class Fence(_message.Message):
    __slots__ = ("attempt", "kind")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    kind: ChangeKind
    def __init__(self, attempt: _Optional[int] = ..., kind: _Optional[_Union[ChangeKind, str]] = ...) -> None: ...

class Install(_message.Message):
    __slots__ = ("view", "kind", "starts", "holders", "topology")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    view: View
    kind: ChangeKind
    starts: _containers.RepeatedCompositeFieldContainer[ChannelStart]
    holders: _containers.RepeatedScalarFieldContainer[bytes]
    topology: bytes
    def __init__(self, view: _Optional[_Union[View, _Mapping]] = ..., kind: _Optional[_Union[ChangeKind, str]] = ..., starts: _Optional[_Iterable[_Union[ChannelStart, _Mapping]]] = ..., holders: _Optional[_Iterable[bytes]] = ..., topology: _Optional[bytes] = ...) -> None: ...

class InstallChange(_message.Message):
    __slots__ = ("epoch", "members", "kind", "starts", "topology")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    members: PeersChange
    kind: ChangeKind
    starts: _containers.RepeatedCompositeFieldContainer[ChannelStart]
    topology: bytes
    def __init__(self, epoch: _Optional[int] = ..., members: _Optional[_Union[PeersChange, _Mapping]] = ..., kind: _Optional[_Union[ChangeKind, str]] = ..., starts: _Optional[_Iterable[_Union[ChannelStart, _Mapping]]] = ..., topology: _Optional[bytes] = ...) -> None: ...

class Measure(_message.Message):
    __slots__ = ("number", "epoch", "fresh", "burst_s", "slot_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    BURST_S_FIELD_NUMBER: _ClassVar[int]
    SLOT_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    epoch: int
    fresh: _containers.RepeatedScalarFieldContainer[bytes]
    burst_s: float
    slot_s: float
    def __init__(self, number: _Optional[int] = ..., epoch: _Optional[int] = ..., fresh: _Optional[_Iterable[bytes]] = ..., burst_s: _Optional[float] = ..., slot_s: _Optional[float] = ...) -> None: ...

class Expelled(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: Departure
    message: str
    def __init__(self, reason: _Optional[_Union[Departure, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class StopNotice(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class DrainNotice(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class NotLeader(_message.Message):
    __slots__ = ("leader", "message")
    LEADER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    leader: str
    message: str
    def __init__(self, leader: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class CoordinatorMessage(_message.Message):
    __slots__ = ("welcome", "peers", "fence", "install", "expelled", "refused", "stop", "measure", "heartbeat", "not_leader", "peers_change", "install_change", "drain", "also")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    INSTALL_FIELD_NUMBER: _ClassVar[int]
    EXPELLED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    NOT_LEADER_FIELD_NUMBER: _ClassVar[int]
    PEERS_CHANGE_FIELD_NUMBER: _ClassVar[int]
    INSTALL_CHANGE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    peers: Peers
    fence: Fence
    install: Install
    expelled: Expelled
    refused: Refused
    stop: StopNotice
    measure: Measure
    heartbeat: Heartbeat
    not_leader: NotLeader
    peers_change: PeersChange
    install_change: InstallChange
    drain: DrainNotice
    also: _containers.RepeatedCompositeFieldContainer[CoordinatorMessage]
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., peers: _Optional[_Union[Peers, _Mapping]] = ..., fence: _Optional[_Union[Fence, _Mapping]] = ..., install: _Optional[_Union[Install, _Mapping]] = ..., expelled: _Optional[_Union[Expelled, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., stop: _Optional[_Union[StopNotice, _Mapping]] = ..., measure: _Optional[_Union[Measure, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., not_leader: _Optional[_Union[NotLeader, _Mapping]] = ..., peers_change: _Optional[_Union[PeersChange, _Mapping]] = ..., install_change: _Optional[_Union[InstallChange, _Mapping]] = ..., drain: _Optional[_Union[DrainNotice, _Mapping]] = ..., also: _Optional[_Iterable[_Union[CoordinatorMessage, _Mapping]]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeerStatus(_message.Message):
    __slots__ = ("info", "state", "heard_ago_s", "report")
    INFO_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HEARD_AGO_S_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    info: PeerInfo
    state: str
    heard_ago_s: float
    report: Report
    def __init__(self, info: _Optional[_Union[PeerInfo, _Mapping]] = ..., state: _Optional[str] = ..., heard_ago_s: _Optional[float] = ..., report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("job", "epoch", "members", "peers", "round", "loss", "parity_failures", "uptime_s", "min_islands", "standby", "leader", "leader_changes", "store", "seen_islands", "shards", "relayed", "departed")
    JOB_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    PARITY_FAILURES_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    MIN_ISLANDS_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LEADER_CHANGES_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    SEEN_ISLANDS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    DEPARTED_FIELD_NUMBER: _ClassVar[int]
    job: str
    epoch: int
    members: _containers.RepeatedScalarFieldContainer[bytes]
    peers: _containers.RepeatedCompositeFieldContainer[PeerStatus]
    round: int
    loss: float
    parity_failures: int
    uptime_s: float
    min_islands: int
    standby: bool
    leader: str
    leader_changes: int
    store: str
    seen_islands: _containers.RepeatedScalarFieldContainer[str]
    shards: int
    relayed: _containers.RepeatedCompositeFieldContainer[Relayed]
    departed: _containers.RepeatedCompositeFieldContainer[Departed]
    def __init__(self, job: _Optional[str] = ..., epoch: _Optional[int] = ..., members: _Optional[_Iterable[bytes]] = ..., peers: _Optional[_Iterable[_Union[PeerStatus, _Mapping]]] = ..., round: _Optional[int] = ..., loss: _Optional[float] = ..., parity_failures: _Optional[int] = ..., uptime_s: _Optional[float] = ..., min_islands: _Optional[int] = ..., standby: bool = ..., leader: _Optional[str] = ..., leader_changes: _Optional[int] = ..., store: _Optional[str] = ..., seen_islands: _Optional[_Iterable[str]] = ..., shards: _Optional[int] = ..., relayed: _Optional[_Iterable[_Union[Relayed, _Mapping]]] = ..., departed: _Optional[_Iterable[_Union[Departed, _Mapping]]] = ...) -> None: ...

class Departed(_message.Message):
    __slots__ = ("island", "reason", "message", "ago_s")
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AGO_S_FIELD_NUMBER: _ClassVar[int]
    island: str
    reason: Departure
    message: str
    ago_s: float
    def __init__(self, island: _Optional[str] = ..., reason: _Optional[_Union[Departure, str]] = ..., message: _Optional[str] = ..., ago_s: _Optional[float] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("number", "time_s", "kind", "island", "peer_id", "message", "epoch", "round", "loss", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    time_s: float
    kind: str
    island: str
    peer_id: bytes
    message: str
    epoch: int
    round: int
    loss: float
    reason: Departure
    def __init__(self, number: _Optional[int] = ..., time_s: _Optional[float] = ..., kind: _Optional[str] = ..., island: _Optional[str] = ..., peer_id: _Optional[bytes] = ..., message: _Optional[str] = ..., epoch: _Optional[int] = ..., round: _Optional[int] = ..., loss: _Optional[float] = ..., reason: _Optional[_Union[Departure, str]] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class StopReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("island", "message")
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    island: str
    message: str
    def __init__(self, island: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("island", "message")
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    island: str
    message: str
    def __init__(self, island: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class KillReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("island", "lines", "follow")
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    island: str
    lines: int
    follow: bool
    def __init__(self, island: _Optional[str] = ..., lines: _Optional[int] = ..., follow: bool = ...) -> None: ...

class LogLines(_message.Message):
    __slots__ = ("label", "lines")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    label: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, label: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...

class LauncherIslands(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class LogPart(_message.Message):
    __slots__ = ("request", "lines", "end")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    request: int
    lines: LogLines
    end: bool
    def __init__(self, request: _Optional[int] = ..., lines: _Optional[_Union[LogLines, _Mapping]] = ..., end: bool = ...) -> None: ...

class LauncherMessage(_message.Message):
    __slots__ = ("islands", "part")
    ISLANDS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    islands: LauncherIslands
    part: LogPart
    def __init__(self, islands: _Optional[_Union[LauncherIslands, _Mapping]] = ..., part: _Optional[_Union[LogPart, _Mapping]] = ...) -> None: ...

class ReadLogs(_message.Message):
    __slots__ = ("request", "what")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    request: int
    what: LogsRequest
    def __init__(self, request: _Optional[int] = ..., what: _Optional[_Union[LogsRequest, _Mapping]] = ...) -> None: ...

class EndLogs(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: int
    def __init__(self, request: _Optional[int] = ...) -> None: ...

class LauncherCommand(_message.Message):
    __slots__ = ("read", "end")
    READ_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    read: ReadLogs
    end: EndLogs
    def __init__(self, read: _Optional[_Union[ReadLogs, _Mapping]] = ..., end: _Optional[_Union[EndLogs, _Mapping]] = ...) -> None: ...

class ShowLinksRequest(_message.Message):
    __slots__ = ("measure",)
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    measure: bool
    def __init__(self, measure: bool = ...) -> None: ...

class MeasuredLink(_message.Message):
    __slots__ = ("to", "rate_bytes_per_s", "rtt_s")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    RATE_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    RTT_S_FIELD_NUMBER: _ClassVar[int]
    to: bytes
    rate_bytes_per_s: float
    rtt_s: float
    def __init__(self, to: _Optional[bytes] = ..., rate_bytes_per_s: _Optional[float] = ..., rtt_s: _Optional[float] = ..., **kwargs) -> None: ...

class ShowLinksReply(_message.Message):
    __slots__ = ("links", "measurements", "measuring")
    LINKS_FIELD_NUMBER: _ClassVar[int]
    MEASUREMENTS_FIELD_NUMBER: _ClassVar[int]
    MEASURING_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[MeasuredLink]
    measurements: int
    measuring: bool
    def __init__(self, links: _Optional[_Iterable[_Union[MeasuredLink, _Mapping]]] = ..., measurements: _Optional[int] = ..., measuring: bool = ...) -> None: ...

class EchoRequest(_message.Message):
    __slots__ = ("payload", "reply_bytes")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    REPLY_BYTES_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    reply_bytes: int
    def __init__(self, payload: _Optional[bytes] = ..., reply_bytes: _Optional[int] = ...) -> None: ...

class EchoReply(_message.Message):
    __slots__ = ("payload", "unix_s", "software_version", "seen")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    UNIX_S_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    unix_s: float
    software_version: str
    seen: str
    def __init__(self, payload: _Optional[bytes] = ..., unix_s: _Optional[float] = ..., software_version: _Optional[str] = ..., seen: _Optional[str] = ...) -> None: ...

class DialBackRequest(_message.Message):
    __slots__ = ("ports",)
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ports: _Optional[_Iterable[int]] = ...) -> None: ...

class DialBackReply(_message.Message):
    __slots__ = ("problems", "seen")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedScalarFieldContainer[str]
    seen: str
    def __init__(self, problems: _Optional[_Iterable[str]] = ..., seen: _Optional[str] = ...) -> None: ...
