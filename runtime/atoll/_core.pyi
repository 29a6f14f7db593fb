"""The native core: links, collectives, state transfer. See csrc/atoll/engine/engine.h.

Every call releases the interpreter lock while it may wait. Buffers are addresses: the caller keeps
the memory alive until the op's `OpEnded` event (atoll.engine does).
"""

from collections.abc import Sequence
from typing import Any, final

NEVER_NS: int
"""A timeout that never passes."""

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
    elapsed_ns: int

@final
class LinkStats:
    peer: bytes
    up: bool
    connections: int
    sent_bytes: int
    received_bytes: int
    sending_ns: int
    receiving_ns: int

@final
class EngineStats:
    links: list[LinkStats]
    stale_frames: int
    early_frames: int
    ops_committed: int
    ops_failed: int
    ops_rerun: int
    rejected_bad_hello: int
    rejected_garbage: int
    rejected_timeout: int
    rejected_overload: int
    protocol_errors: int
    donated_bytes: int

@final
class LinkUp:
    peer: bytes

@final
class LinkDown:
    peer: bytes
    reason: str
    message: str

@final
class Fenced:
    attempt: int
    epoch: int
    progress: dict[int, tuple[int, int, int]]
    """channel -> (started, done, committed)"""

@final
class Installed:
    epoch: int
    member: bool

@final
class OpEnded:
    op: int

Event = LinkUp | LinkDown | Fenced | Installed | OpEnded

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
    ) -> None: ...
    @property
    def port(self) -> int: ...
    @property
    def event_fd(self) -> int: ...
    def expect(self, peer: bytes) -> None: ...
    def dial(self, peer: bytes, host: str, port: int) -> None: ...
    def drop(self, peer: bytes) -> None: ...
    def fence(self, attempt: int, kind: str) -> None:
        """kind: "drain" or "abort"."""
    def install(
        self, epoch: int, members: Sequence[bytes], starts: dict[int, int], kind: str
    ) -> None: ...
    def all_reduce(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        *,
        plan: str = "auto",
        timeout_ns: int = ...,
    ) -> int:
        """fp32 sum of `count` elements from address `source` to `target`.

        plan: auto, ring or direct.
        """

    def broadcast(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        root: bytes,
        *,
        timeout_ns: int = ...,
    ) -> int: ...
    def barrier(self, channel: int, *, timeout_ns: int = ...) -> int: ...
    def exchange(
        self,
        channel: int,
        source: int,
        target: int,
        count: int,
        partner: bytes,
        tag: int,
        *,
        timeout_ns: int = ...,
    ) -> int: ...
    def abort(self, op: int) -> None: ...
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
