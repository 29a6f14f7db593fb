"""What a session knows of its job at one moment: a snapshot made by the control thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.errors import AtollError
from atoll.membership.messages import PeerId, PeerInfo, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """`view`, `starts` and `holders` are those that the engine has installed."""

    peer: PeerId
    order: int
    view: View
    starts: Mapping[int, int]
    holders: frozenset[PeerId]
    member: bool
    """Whether this peer is in `view`."""
    peers: tuple[PeerInfo, ...]
    """Everybody who listens, from the coordinator's last word."""
    donors: frozenset[PeerId]
    """Whom a joiner can fetch from; empty when there is no state yet."""
    linked: frozenset[PeerId]
    connected: bool
    """To the coordinator, now."""
    left: bool
    ended: AtollError | None
    """CannotJoin, Expelled or SessionClosed: nothing comes after it."""
    draining: str = ""
    """Why this island is to leave once its round is over; empty: it may stay."""
    history: Mapping[int, View] = field(default_factory=dict)
    """The last views that the engine was told to install, by epoch, the present one included."""
