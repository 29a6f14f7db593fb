"""What a coordinator's server is to be."""

from __future__ import annotations

from dataclasses import dataclass, field

from atoll.membership.events import CoordinatorOptions
from atoll.store import Store
from atoll.store.memory import MemoryStore
from atoll.trust.authority import Authority
from atoll.trust.identity import Identity
from atoll.trust.remembered import Remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Where to listen, and the job. metrics_port: 0 is any; None is no metrics over HTTP.
    advertise: where peers find this coordinator; empty: where it listens."""

    coordinator: CoordinatorOptions
    listen: str = "127.0.0.1:0"
    advertise: str = ""
    store: Store = field(default_factory=MemoryStore)
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    identity: Identity | None = None
    """With it, TLS: callers need certificates of the job."""
    authority: Authority | None = None
    """With it, joiners get certificates for tokens."""
    remembered: Remembered | None = None
    """Of that authority; None: what is revoked and used is known to the store alone."""
