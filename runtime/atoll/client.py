"""The control plane as a session sees it, with a coordinator or without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from atoll import errors
from atoll.config import parse_hosts
from atoll.last_words import end_in_one_line
from atoll.trust.exposure import check_island

if TYPE_CHECKING:
    from atoll import _core
    from atoll.config import SessionSettings
    from atoll.control.membership import Membership
    from atoll.membership.messages import Departure, PeerId, Report
    from atoll.trust.identity import Identity


class Client(Protocol):
    """What a session needs of the control plane: ControlClient, or AloneClient."""

    @property
    def engine(self) -> _core.Engine: ...
    def start(self) -> None: ...
    def ready(self) -> None: ...
    def holding(self, epoch: int | None = None) -> None: ...
    def report(self, report: Report) -> None: ...
    def measure_links(self) -> None: ...
    def links_carry(self, times: Mapping[bytes, float]) -> None: ...
    def drain(self, message: str) -> None: ...
    def leave(self, reason: Departure, timeout_s: float) -> bool: ...
    def membership(self) -> Membership: ...
    def wait(self, predicate: Callable[[Membership], bool], timeout_s: float) -> Membership: ...
    def close(self) -> None: ...


def identity_of(settings: SessionSettings) -> Identity | None:
    """This process's certificate, if the settings name one; looked through, so that what is wrong
    with it is said here and not by a handshake. Raises ConfigError."""
    from atoll.trust.identity import Identity

    paths = (settings.tls_cert, settings.tls_key, settings.tls_ca)
    if settings.tls_dir is not None:
        return Identity.in_folder(settings.tls_dir)
    cert, key, ca = paths
    if cert is None and key is None and ca is None:
        return None
    if cert is None or key is None or ca is None:
        names = ("tls_cert", "tls_key", "tls_ca")
        missing = [name for name, path in zip(names, paths, strict=True) if path is None]
        raise errors.ConfigError(
            f"TLS needs tls_cert, tls_key and tls_ca, or none; not set: {', '.join(missing)}"
        )
    return Identity.read(cert=cert, key=key, ca=ca)


def make_engine(
    settings: SessionSettings, identity: Identity | None, *, peer: PeerId, secret: bytes
) -> _core.Engine:
    """This process's data plane as the settings want it; it listens. Raises CannotJoin."""
    from atoll import _core

    try:
        return _core.Engine(
            peer=peer,
            secret=secret,
            bind_host=settings.bind_host,
            connections=settings.connections or 0,
            heartbeat_s=settings.heartbeat_s,
            silence_s=settings.silence_s,
            repair_grace_s=settings.repair_grace_s,
            dial_timeout_s=settings.dial_timeout_s,
            handshake_timeout_s=settings.handshake_timeout_s,
            shared_memory=settings.shared_memory,
            keepalive_s=settings.keepalive_s,
            checksums=settings.link_crc,
            tls_certificate="" if identity is None else identity.certificate.decode(),
            tls_key="" if identity is None else identity.key.decode(),
            tls_authorities="" if identity is None else identity.authorities.decode(),
            congestion="" if settings.congestion == "system" else settings.congestion,
        )
    except _core.CoreError as error:
        raise errors.CannotJoin(f"cannot listen: {error}") from None


def trusted_identity(settings: SessionSettings) -> Identity | None:
    """This process's certificate, if it has one, for links that others than this process may reach.

    Raises ConfigError when it is not valid now, or when there is none and strangers reach what
    listens.
    """
    identity = identity_of(settings)
    if identity is not None:
        identity.checked(datetime.now(UTC))
    check_island(
        bind_host=settings.bind_host,
        advertise_hosts=parse_hosts(settings.advertise_host),
        trusted=identity is not None,
        insecure=settings.insecure,
    )
    return identity


def make_client(
    settings: SessionSettings,
    island: str,
    *,
    on_op_ended: Callable[[int], None],
    on_fence_over: Callable[[str, float], None],
) -> Client:
    """The client that the settings call for, not started yet. Raises ConfigError.

    `on_op_ended` gets the id of every op whose buffers are free again, `on_fence_over`
    each change of view's kind and how long it kept ops from starting.
    """

    alone = settings.coordinator is None
    identity = identity_of(settings) if alone else trusted_identity(settings)

    def engine_factory(peer: PeerId, secret: bytes) -> _core.Engine:
        return make_engine(settings, identity, peer=peer, secret=secret)

    if settings.coordinator is None:
        from atoll.alone import AloneClient

        return AloneClient(
            island=island,
            shard=settings.shard,
            engine_factory=engine_factory,
            on_op_ended=on_op_ended,
        )
    from atoll import __version__
    from atoll.control.client import ControlClient

    end_in_one_line()

    return ControlClient(
        coordinator=settings.coordinator,
        job=settings.job,
        island=island,
        shard=settings.shard,
        shards=settings.shards,
        engine_factory=engine_factory,
        advertise_hosts=parse_hosts(settings.advertise_host),
        connect_timeout_s=settings.connect_timeout_s,
        on_op_ended=on_op_ended,
        on_fence_over=on_fence_over,
        software_version=__version__,
        probes=settings.probe,
        leave_s=settings.leave_s,
        identity=identity,
    )
