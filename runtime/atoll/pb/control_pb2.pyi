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

class Endpoint(_message.Message):
    __slots__ = ("host", "port")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class PeerInfo(_message.Message):
    __slots__ = ("id", "island", "order", "endpoints")
    ID_FIELD_NUMBER: _ClassVar[int]
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    island: str
    order: int
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    def __init__(self, id: _Optional[bytes] = ..., island: _Optional[str] = ..., order: _Optional[int] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("protocol_version", "software_version", "job", "peer_id", "island", "installed_epoch")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    ISLAND_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    software_version: str
    job: str
    peer_id: bytes
    island: str
    installed_epoch: int
    def __init__(self, protocol_version: _Optional[int] = ..., software_version: _Optional[str] = ..., job: _Optional[str] = ..., peer_id: _Optional[bytes] = ..., island: _Optional[str] = ..., installed_epoch: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("peer_id", "reason", "message")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    peer_id: bytes
    reason: Departure
    message: str
    def __init__(self, peer_id: _Optional[bytes] = ..., reason: _Optional[_Union[Departure, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: Departure
    def __init__(self, reason: _Optional[_Union[Departure, str]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("round", "loss", "tokens", "tokens_per_s", "sync_s", "sent_bytes", "received_bytes", "digest", "phase", "validation_loss", "contributed", "metrics_port", "epoch")
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
    def __init__(self, round: _Optional[int] = ..., loss: _Optional[float] = ..., tokens: _Optional[int] = ..., tokens_per_s: _Optional[float] = ..., sync_s: _Optional[float] = ..., sent_bytes: _Optional[int] = ..., received_bytes: _Optional[int] = ..., digest: _Optional[str] = ..., phase: _Optional[str] = ..., validation_loss: _Optional[float] = ..., contributed: bool = ..., metrics_port: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class PeerMessage(_message.Message):
    __slots__ = ("register", "heartbeat", "linked", "ready", "fenced", "installed", "suspect", "leave", "report", "listening", "holding")
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
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., linked: _Optional[_Union[Linked, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., fenced: _Optional[_Union[FencedReply, _Mapping]] = ..., installed: _Optional[_Union[InstalledReply, _Mapping]] = ..., suspect: _Optional[_Union[Suspect, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., listening: _Optional[_Union[Listening, _Mapping]] = ..., holding: _Optional[_Union[Holding, _Mapping]] = ...) -> None: ...

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

class Peers(_message.Message):
    __slots__ = ("peers", "holders")
    PEERS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[PeerInfo]
    holders: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, peers: _Optional[_Iterable[_Union[PeerInfo, _Mapping]]] = ..., holders: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Fence(_message.Message):
    __slots__ = ("attempt", "kind")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    kind: ChangeKind
    def __init__(self, attempt: _Optional[int] = ..., kind: _Optional[_Union[ChangeKind, str]] = ...) -> None: ...

class Install(_message.Message):
    __slots__ = ("view", "kind", "starts", "holders")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    view: View
    kind: ChangeKind
    starts: _containers.RepeatedCompositeFieldContainer[ChannelStart]
    holders: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, view: _Optional[_Union[View, _Mapping]] = ..., kind: _Optional[_Union[ChangeKind, str]] = ..., starts: _Optional[_Iterable[_Union[ChannelStart, _Mapping]]] = ..., holders: _Optional[_Iterable[bytes]] = ...) -> None: ...

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

class CoordinatorMessage(_message.Message):
    __slots__ = ("welcome", "peers", "fence", "install", "expelled", "refused", "stop", "heartbeat")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    INSTALL_FIELD_NUMBER: _ClassVar[int]
    EXPELLED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    peers: Peers
    fence: Fence
    install: Install
    expelled: Expelled
    refused: Refused
    stop: StopNotice
    heartbeat: Heartbeat
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., peers: _Optional[_Union[Peers, _Mapping]] = ..., fence: _Optional[_Union[Fence, _Mapping]] = ..., install: _Optional[_Union[Install, _Mapping]] = ..., expelled: _Optional[_Union[Expelled, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., stop: _Optional[_Union[StopNotice, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("job", "epoch", "members", "peers", "round", "loss", "parity_failures", "uptime_s", "min_islands")
    JOB_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    PARITY_FAILURES_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    MIN_ISLANDS_FIELD_NUMBER: _ClassVar[int]
    job: str
    epoch: int
    members: _containers.RepeatedScalarFieldContainer[bytes]
    peers: _containers.RepeatedCompositeFieldContainer[PeerStatus]
    round: int
    loss: float
    parity_failures: int
    uptime_s: float
    min_islands: int
    def __init__(self, job: _Optional[str] = ..., epoch: _Optional[int] = ..., members: _Optional[_Iterable[bytes]] = ..., peers: _Optional[_Iterable[_Union[PeerStatus, _Mapping]]] = ..., round: _Optional[int] = ..., loss: _Optional[float] = ..., parity_failures: _Optional[int] = ..., uptime_s: _Optional[float] = ..., min_islands: _Optional[int] = ...) -> None: ...

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
