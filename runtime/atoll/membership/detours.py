"""A peer's part in relays: through whom it reaches whom, and whom it brings together.

Part of the peer's machine, pure as that is. Everybody hears the same list of relayed pairs
(`atoll.membership.relays` makes it). The younger of a pair asks the relay for the older one; the
relay lets it, because both know a ticket that only peers of this job can make.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable

from atoll.membership.messages import PeerId, PeerInfo, Relayed
from atoll.membership.peer_events import Carry, Detour, PeerAction


def ticket(secret: bytes, relayed: Relayed) -> bytes:
    """32 bytes. HMAC-SHA256 (RFC 2104) with the job's secret, which they do not give away: they
    travel in the clear."""
    pair = b"".join(sorted((relayed.one, relayed.other)))
    return hmac.digest(secret, b"atoll relay 1" + pair + relayed.relay, hashlib.sha256)


class Detours:
    """Thread: none of its own; belongs to the peer's machine."""

    def __init__(self, peer: PeerId, *, act: Callable[[PeerAction], None]) -> None:
        self._peer = peer
        self._act = act
        self._ways: dict[PeerId, tuple[PeerInfo, Detour]] = {}
        self._carried: dict[tuple[PeerId, PeerId], bytes] = {}

    def plan(self, relayed: Iterable[Relayed], listed: Iterable[PeerInfo], secret: bytes) -> None:
        """Takes in what the coordinator has told last; of peers that do not listen, nothing."""
        infos = {info.id: info for info in listed}
        self._ways.clear()
        carried: dict[tuple[PeerId, PeerId], bytes] = {}
        for one in relayed:
            if not {one.one, one.other, one.relay} <= infos.keys():
                continue
            if self._peer == one.relay:
                carried[one.one, one.other] = ticket(secret, one)
            elif self._peer in (one.one, one.other):
                peer = one.other if self._peer == one.one else one.one
                detour = Detour(relay=one.relay, ticket=ticket(secret, one))
                self._ways[peer] = (infos[one.relay], detour)
        for pair in self._carried.keys() - carried.keys():
            self._act(Carry(one=pair[0], other=pair[1], ticket=b""))
        for pair, shown in carried.items():
            if self._carried.get(pair) != shown:
                self._act(Carry(one=pair[0], other=pair[1], ticket=shown))
        self._carried = carried

    def to(self, peer: PeerId) -> tuple[PeerInfo, Detour] | None:
        """The relay to ask for this peer, if it is not reached directly."""
        return self._ways.get(peer)
