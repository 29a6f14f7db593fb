"""The control plane as a session sees it, with a coordinator or without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from atoll import errors

if TYPE_CHECKING:
    from atoll import _core
    from atoll.config import SessionSettings
    from atoll.control.membership import Membership
    from atoll.membership.messages import Departure, PeerId, Report


class Client(Protocol):
    """What a session needs of the control plane: ControlClient, or AloneClient."""

    @property
    def engine(self) -> _core.Engine: ...
    def start(self) -> None: ...
    def ready(self) -> None: ...
    def holding(self, epoch: int | None = None) -> None: ...
    def report(self, report: Report) -> None: ...
    def leave(self, reason: Departure, timeout_s: float) -> bool: ...
    def membership(self) -> Membership: ...
    def wait(self, predicate: Callable[[Membership], bool], timeout_s: float) -> Membership: ...
    def close(self) -> None: ...


def make_client(
    settings: SessionSettings, island: str, *, on_op_ended: Callable[[int], None]
) -> Client:
    """The client that the settings call for, not started yet. Raises ConfigError.

    `on_op_ended` gets the id of every op whose buffers are free again.
    """

    def make_engine(peer: PeerId, secret: bytes) -> _core.Engine:
        from atoll import _core

        try:
            return _core.Engine(
                peer=peer,
                secret=secret,
                bind_host=settings.bind_host,
                connections=settings.connections,
                silence_s=settings.silence_s,
            )
        except _core.CoreError as error:
            raise errors.CannotJoin(f"cannot listen: {error}") from None

    if settings.coordinator is None:
        from atoll.alone import AloneClient

        return AloneClient(island=island, engine_factory=make_engine, on_op_ended=on_op_ended)
    from atoll import __version__
    from atoll.control.client import ControlClient

    return ControlClient(
        coordinator=settings.coordinator,
        job=settings.job,
        island=island,
        engine_factory=make_engine,
        advertise_host=settings.advertise_host,
        connect_timeout_s=settings.connect_timeout_s,
        on_op_ended=on_op_ended,
        software_version=__version__,
    )
