"""The native core: links, collectives, state transfer. See csrc/atoll/engine/engine.h.

Every call releases the interpreter lock while it may wait. Buffers are addresses: the caller keeps
the memory alive until the op's `OpEnded` event (atoll.collectives does).
"""

from collections.abc import Sequence
from typing import Any, final, overload

_Ends = Sequence[tuple[str, int]]
_Names = Sequence[str]
NEVER_NS: int  # a timeout that never passes

class CoreError(Exception):
    """A native call was refused. `code` is one of the names of reef::Code."""

    code: str
    sys_errno: int

@final
class Outcome:
    code: str
    message: str
    epoch: int
    sequence: int
    revision: int
    elapsed_ns: int  # from submit to the end
    bytes_per_s: float  # of a probe
    round_trip_ns: int  # of a probe
    plan: str  # of an all-reduce: how it was done; otherwise empty
    chunk_bytes: int  # of an op that committed: of the vector, at most, in one frame
    members: int
    """Of the view that it committed in. This and what follows: 0 for an op that failed."""
    contributors: int  # reductions: members whose weight is not 0
    total_weight: float  # reductions: the sum of the members' weights
    weights: list[float]  # reductions: the members' weights, by rank
    notes: list[int]
    """What each member had to say to the others' callers, by rank. Of ops of all members."""
    non_finite: int
    """NaNs and infinities that this member's encoders met, sums that it owns included."""
    saturated: int  # finite numbers beyond the codec's format (bf16, fp16), likewise

@final
class LinkStats:
    peer: bytes
    up: bool
    relay: bytes  # the peer through which the link that is up goes; empty: none
    transport: str  # "tcp", "tls" or "shm"; empty while it is down
    connections: int  # that live now
    expected_bytes_per_s: float
    delivered_bytes_per_s: float
    pace_bytes_per_s: float
    repairs: int  # connections that took the place of lost ones
    damaged_frames: int
    sent_bytes: int
    received_bytes: int
    sending_ns: int
    receiving_ns: int
    round_trip_ns: int  # as the kernel smooths it, of the best connection; 0: down, or no TCP
    retransmitted: int  # TCP segments

@final
class EngineStats:
    links: list[LinkStats]
    stale_frames: int
    early_frames: int
    ops_committed: int
    ops_failed: int
    ops_rerun: int
    payload_bytes: dict[str, int]  # of ops, handed to links, by codec
    rejected_bad_hello: int
    rejected_garbage: int
    rejected_timeout: int
    rejected_overload: int
    rejected_tls: int
    rejected_name: int
    protocol_errors: int
    donated_bytes: int
    shared_memory_failures: int
    relay_pairs: int  # of peers that this one may bring together
    relay_connections: int  # that it carries now
    relay_connections_made: int
    relay_bytes: int
    relay_refused: int

@final
class LinkUp:
    peer: bytes

@final
class LinkDown:
    peer: bytes
    reason: str
    message: str

@final
class Refused:
    """A stranger was refused, and an operator can mend it. At most one in ten seconds."""

    message: str

@final
class NotLocal:
    """Shared memory with a peer of this host came to nothing. At most one in ten seconds."""

    peer: bytes
    message: str

@final
class Fenced:
    attempt: int
    epoch: int
    progress: dict[int, tuple[int, int, int]]  # channel -> (started, done, committed)

@final
class Installed:
    epoch: int
    member: bool

@final
class Offered:  # of a channel that is listened to: a send that nobody receives yet
    peer: bytes
    channel: int
    tag: int

@final
class OpEnded:
    op: int

Event = LinkUp | LinkDown | Refused | NotLocal | Fenced | Installed | Offered | OpEnded

@final
class Engine:
    def __init__(
        self,
        *,
        peer: bytes,
        secret: bytes,
        bind_host: str = "127.0.0.1",
        bind_port: int = 0,
        connections: int = 2,
        heartbeat_s: float = 0.5,
        silence_s: float = 5.0,
        dial_timeout_s: float = 10.0,
        shared_memory: bool = True,
        handshake_timeout_s: float = 5.0,
        repair_grace_s: float = 1.0,
        keepalive_s: float = 15.0,
        checksums: bool = False,
        tls_certificate: str = "",
        tls_key: str = "",
        tls_authorities: str = "",
        congestion: str = "",
    ) -> None:
        """connections: 0: of a new link as many as its path needs, 2 at least. tls_*: PEM
        text, all three or none. checksums: CRC-32C on every frame of a socket; either side of a
        link may ask for it. keepalive_s: 0: the kernel probes no idle connections. congestion: of
        links' sockets: auto, empty for the system's, or a name."""
    @property
    def port(self) -> int: ...
    @property
    def event_fd(self) -> int: ...
    def expect(self, peer: bytes, endpoints: _Ends = ..., *, names: _Names = ...) -> None:
        """endpoints: to dial it again. names: with TLS its certificate's URI is one; none: any."""
    @overload
    def dial(self, peer: bytes, host: str, port: int) -> None: ...
    @overload
    def dial(self, peer: bytes, endpoints: _Ends, *, names: _Names = ...) -> None: ...
    @overload
    def dial(
        self, peer: bytes, endpoints: _Ends, relay: bytes, ticket: bytes, *, names: _Names = ...
    ) -> None: ...
    def carry(self, one: bytes, other: bytes, ticket: bytes) -> None: ...
    def uncarry(self, one: bytes, other: bytes) -> None: ...
    def drop(self, peer: bytes) -> None: ...
    def fence(self, attempt: int, kind: str) -> None:
        """kind: "drain" or "abort"."""
    def install(
        self,
        epoch: int,
        members: Sequence[bytes],
        starts: dict[int, int],
        kind: str,
        *,
        topology: bytes = b"",
    ) -> None:
        """topology: what was measured of the members' links, as csrc/atoll/topology/topology.h
        encodes it; empty: nothing. Refused when it is malformed or of another number of members."""
    def all_reduce(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        *,
        dtype: str = "float32",
        reduction: str = "sum",
        plan: str = "auto",
        codec: str = "fp32",
        rounding: str = "nearest",
        seed: int = 0,
        weight: float = 1.0,
        epoch: int = 0,
        priority: int = 0,
        chunk_bytes: int = 0,
        timeout_ns: int = ...,
        quiet: bool = False,
        note: int = 0,
        overwrite: bool = False,
    ) -> int:
        """Reduces `count` elements from address `source` to `target`; equal: in place.

        dtype: float32 float64 float16 bfloat16 int8 uint8 int32 int64. reduction: sum avg min max
        product. plan: auto ring direct doubling mesh grouped. codec: as in docs/codecs.md, with _
        for -, two_bit for 2bit. rounding: nearest stochastic. epoch: of the view that the op is
        for (0: any). Of ops to one member the one with the largest priority sends first.
        chunk_bytes: 0 for the default. quiet: its OpEnded need not wake who waits for events, and
        comes with the next one (unless the op is `watch`ed later). note: 64 bits for the other
        members' callers, who find them in `Outcome.notes`.
        overwrite: in place, without a copy: an op that fails leaves anything, and does not rerun.
        """
    def reduce_scatter(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        target_count: int,
        *,
        dtype: str = "float32",
        reduction: str = "sum",
        codec: str = "fp32",
        rounding: str = "nearest",
        seed: int = 0,
        weight: float = 1.0,
        epoch: int = 0,
        priority: int = 0,
        chunk_bytes: int = 0,
        timeout_ns: int = ...,
        quiet: bool = False,
    ) -> int:
        """`target_count` is the size of this member's part; see `part_bounds`."""
    def all_gather(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        target_count: int,
        *,
        counts: Sequence[int] = [],
        dtype: str = "float32",
        epoch: int = 0,
        priority: int = 0,
        chunk_bytes: int = 0,
        timeout_ns: int = ...,
        quiet: bool = False,
        note: int = 0,
    ) -> int:
        """counts: elements of each member by rank; empty: `count` of each."""
    def all_to_all(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        total_count: int,
        *,
        dtype: str = "float32",
        epoch: int = 0,
        priority: int = 0,
        chunk_bytes: int = 0,
        timeout_ns: int = ...,
        quiet: bool = False,
    ) -> int:
        """`count` elements for each member, `total_count` for all of them."""
    def broadcast(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        root: bytes,
        *,
        dtype: str = "float32",
        epoch: int = 0,
        priority: int = 0,
        chunk_bytes: int = 0,
        timeout_ns: int = ...,
        quiet: bool = False,
        overwrite: bool = False,
    ) -> int:
        """source: 0 on those who are not the root."""
    def barrier(
        self, channel: int, *, epoch: int = 0, timeout_ns: int = ..., quiet: bool = False
    ) -> int: ...
    def exchange(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        partner: bytes,
        tag: int,
        *,
        dtype: str = "float32",
        priority: int = 0,
        chunk_bytes: int = 0,
        timeout_ns: int = ...,
        quiet: bool = False,
    ) -> int: ...
    def send(
        self,
        channel: int,
        source: int,
        count: int,
        partner: bytes,
        tag: int,
        *,
        dtype: str = "float32",
        priority: int = 0,
        chunk_bytes: int = 0,
        timeout_ns: int = ...,
        quiet: bool = False,
    ) -> int: ...
    def recv(
        self,
        channel: int,
        target: int,
        count: int,
        partner: bytes,
        tag: int,
        *,
        dtype: str = "float32",
        priority: int = 0,
        chunk_bytes: int = 0,
        timeout_ns: int = ...,
        quiet: bool = False,
    ) -> int: ...
    def watch(self, op: int) -> None:
        """The OpEnded of a quiet op is to wake who waits for events, after all."""
    def probe(self, peer: bytes, *, duration_s: float = 0.1, timeout_s: float = 5.0) -> int:
        """Measures the link to `peer` with a burst of filler; the outcome has rate and round trip.

        One at a time on a link. duration_s: of the burst, at most 0.5."""
    def abort(self, op: int) -> None: ...
    def listen(self, channel: int) -> None:
        """`Offered` events tell of sends on this channel before their recv, and that wait now."""
    def wait(self, op: int, timeout_ns: int) -> Outcome | None: ...
    def release(self, op: int) -> None: ...
    def publish(self, revision: int, buffers: Sequence[tuple[int, int]], keep_alive: Any) -> None:
        """buffers: (address, bytes) each. `keep_alive` is dropped in take_events() or publish(), by
        a thread that holds the interpreter lock, once no transfer reads the old buffers."""
    def unpublish(self) -> None: ...
    def fetch(
        self,
        donor: bytes,
        revision: int | None,
        buffer: int,
        offset: int,
        target: int,
        length: int,
        timeout_ns: int,
    ) -> int: ...
    def take_events(self) -> list[Event]: ...
    def stats(self) -> EngineStats: ...
    def close(self) -> None: ...

class Topology:
    """Measured links as they come with a view, and what the core makes of them."""
    def __init__(self, encoded: bytes) -> None: ...
    @property
    def members(self) -> int: ...
    @property
    def ring(self) -> list[int]:
        """The ring's order, by rank."""
    @property
    def sites(self) -> list[int]:
        """By member, the number of its site."""
    @property
    def part_weights(self) -> list[int]:
        """By member, how much of a vector it owns in the direct plan, in 65,536ths."""
    def link(self, sender: int, receiver: int) -> tuple[float, float]:
        """Bytes per second and the round trip in seconds."""
    def predict(self, wire_bytes: int, chunk_bytes: int = 524288) -> dict[str, float]:
        """Seconds that an all-reduce of a vector of so many bytes would take, by plan."""
    def choose(self, wire_bytes: int) -> str:
        """The plan that it would take."""

def plan_all_reduce(
    count: int, members: int, codec: str = "fp32", topology: Topology | None = None
) -> tuple[str, int]:
    """The plan of an all-reduce of `count` floats, and its chunks in bytes of the vector."""

def unmeasured_seconds(
    members: int,
    wire_bytes: int,
    chunk_bytes: int,
    slowest_bytes_per_s: float,
    latency_s: float,
    ring_latency_s: float,
    ring_s_per_byte: float,
) -> dict[str, float]:
    """Seconds of an all-reduce, by plan, without a topology, over links that the caller knows."""

def nesterov_step(
    theta_out: int,
    momentum_out: int,
    theta: int,
    momentum: int,
    total: int,
    count: int,
    inverse_weight: float,
    eta: float,
    mu: float,
) -> None:
    """Addresses of fp32 vectors of `count` elements; see csrc/atoll/kernels/kernels.h."""

def descend(
    theta_out: int, theta: int, total: int, count: int, inverse_weight: float, alpha: float
) -> None:
    """theta_out = theta - alpha * (total * inverse_weight), fp32; theta_out may be theta."""

def scatter_add(
    acc: int, count: int, positions: int, values: int, entries: int, factor: float
) -> None:
    """acc[positions[j]] += factor * values[j] in fp32, for j = 0, 1, ... in turn.

    acc: `count` fp32; positions: `entries` int64; values: as many fp32. Refused: others' positions.
    """

def encoded_bytes(codec: str, count: int) -> int:
    """Of `count` elements. codec: as in docs/codecs.md, with _ for -, two_bit for 2bit."""

def encode(
    codec: str, source: int, count: int, target: int, *, rounding: str = "nearest", seed: int = 0
) -> tuple[int, int]:
    """`count` fp32 at `source` to `encoded_bytes` bytes at `target`; no overlap.

    Returns how many were NaN or infinite, and how many saturated (bf16, fp16).
    """

def decode(codec: str, source: int, count: int, target: int) -> None:
    """The bytes at `source` to `count` fp32 at `target`. Any bytes decode."""

def decode_add(codec: str, source: int, count: int, acc: int) -> None:
    """acc[i] = acc[i] + decoded[i] in fp32."""

def part_bounds(count: int, members: int, codec: str) -> list[int]:
    """The bounds of a reduce-scatter's parts, in elements: members + 1 numbers."""
