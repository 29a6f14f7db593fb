"""A peer's links: whom it knows, whom it dials and when again, which links were lost.

Part of the peer's machine, pure as that is. A younger peer dials an older one; when that has come
to nothing for a while the older one dials as well, for it may be the one that nobody can reach.
Both sides tell their engine where the other listens, so that either can redial a link that was cut,
and finds out at once when the other's process is gone. Whom it could not reach it tells the
coordinator, which may name a relay (`atoll.membership.detours`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from atoll.membership.detours import Detours
from atoll.membership.messages import (
    Departure,
    LinkedMore,
    PeerId,
    PeerInfo,
    PeerMessage,
    Suspect,
    Unreached,
)
from atoll.membership.peer_events import Dial, Drop, Expect, LinkDown, PeerAction

REDIAL_FIRST_S = 0.1
REDIAL_MOST_S = 5.0
REDIALS = 50
"""In a row without a link; about four minutes, besides what each dial takes."""
OLDER_AFTER_S = 3.0
"""A younger peer has so long to dial before the older one does, too: more than a link over a bad
network takes, and more than most wait for each other when many come at once."""

_DEPARTURES = {
    "unreachable": Departure.UNREACHABLE,
    "silent": Departure.SILENT,
    "protocol": Departure.PROTOCOL,
    "bye": Departure.FINISHED,
}


@dataclass(slots=True)
class _Dialling:
    """How a link is being made. `helps`: with a younger peer, which dials first."""

    tries: int = 0
    again_s: float | None = None
    helps: bool = False
    relay: PeerId = b""  # through whom it was tried last


class PeerLinks:
    """Thread: none of its own; belongs to the peer's machine."""

    def __init__(
        self,
        peer: PeerId,
        *,
        say: Callable[[PeerMessage], None],
        act: Callable[[PeerAction], None],
        detours: Detours,
    ) -> None:
        """`say` and `act` get what is to be told and to be done, in order."""
        self.linked: frozenset[PeerId] = frozenset()
        self._peer = peer
        self._say = say
        self._act = act
        self._detours = detours
        self._unreached: dict[PeerId, Unreached] = {}
        self._now_s = 0.0
        self._dialling: dict[PeerId, _Dialling] = {}
        self._known: dict[PeerId, PeerInfo] = {}  # those the engine was told of
        self._flapped: dict[PeerId, Suspect] = {}  # links lost since the last fence's answer
        self._fenced_flaps: frozenset[PeerId] = frozenset()

    # --- who is there -----------------------------------------------------------------------------

    def forget_all_but(self, kept: Collection[PeerId]) -> list[PeerId]:
        """Drops the others, and returns them."""
        gone = [peer for peer in self._known if peer not in kept]
        for peer in gone:
            del self._known[peer]
            self._dialling.pop(peer, None)
            self._flapped.pop(peer, None)
            self._unreached.pop(peer, None)
            if peer in self.linked:
                self.linked -= {peer}
                self._say(LinkedMore(removed=frozenset((peer,))))
            self._act(Drop(peer=peer))
        return gone

    def meet(self, info: PeerInfo, order: int) -> None:
        """Makes the engine know a peer that listens; `order` is this peer's own."""
        peer = info.id
        before = self._known.get(peer)
        self._known[peer] = info
        dialling = self._dialling.get(peer)
        # A coordinator that had given this peer up may have welcomed it with another order.
        if info.order < order:
            if dialling is None or dialling.helps:
                dialling = self._dialling[peer] = _Dialling()
                if peer not in self.linked:
                    self._dial(info, dialling)
            elif peer not in self.linked and dialling.relay != self._relay_to(peer):
                dialling.tries = 0  # another way than the one that is tried
                self._dial(info, dialling)
        elif info.order > order:
            turned = dialling is not None and not dialling.helps
            if turned or before is None or before.endpoints != info.endpoints:
                self._expect(info)
            if dialling is None or turned:
                self._dialling[peer] = _Dialling(helps=True)
                self._help_later(peer)
            elif dialling.relay and not self._relay_to(peer):
                dialling.relay = b""  # there was one, and it is gone
                self._help_later(peer)

    def tick(self, now_s: float) -> None:
        """Dials those whose time has come."""
        self._now_s = now_s
        for peer, dialling in self._dialling.items():
            if dialling.again_s is not None and now_s >= dialling.again_s:
                self._dial(self._known[peer], dialling)

    @property
    def redials(self) -> bool:
        """Whether somebody is to be dialled when time has passed."""
        return any(
            dialling.again_s is not None and not dialling.helps
            for dialling in self._dialling.values()
        )

    @property
    def unreached(self) -> list[Unreached]:
        """What a coordinator that has not heard of it should hear again."""
        return list(self._unreached.values())

    def _relay_to(self, peer: PeerId) -> PeerId:
        way = self._detours.to(peer)
        return b"" if way is None else way[0].id

    def _help_later(self, peer: PeerId) -> None:
        if peer not in self.linked:
            dialling = self._dialling[peer]
            pause_s = OLDER_AFTER_S * (1 + dialling.tries)
            dialling.again_s = self._now_s + pause_s

    def _expect(self, info: PeerInfo) -> None:
        self._act(Expect(peer=info.id, island=info.island, endpoints=info.endpoints))

    def _dial(self, info: PeerInfo, dialling: _Dialling) -> None:
        dialling.again_s = None
        if dialling.tries >= REDIALS:
            return
        way = self._detours.to(info.id)
        dialling.relay = b"" if way is None else way[0].id
        if dialling.helps and way is not None:
            return  # the younger one asks the relay
        endpoints, detour = (info.endpoints, None) if way is None else (way[0].endpoints, way[1])
        if endpoints:
            dialling.tries += 1
            self._act(Dial(peer=info.id, island=info.island, endpoints=endpoints, detour=detour))
        else:
            self._say_unreached(info.id, dialling.relay)

    def _say_unreached(self, peer: PeerId, relay: PeerId) -> None:
        self._unreached[peer] = Unreached(peer=peer, relay=relay)
        self._say(self._unreached[peer])

    # --- the engine's links -----------------------------------------------------------------------

    def up(self, peer: PeerId) -> None:
        """A link came up."""
        if peer not in self._known:
            return
        if peer in self.linked:  # another link has taken the place of the one that was there
            self._suspect(LinkDown(peer=peer, reason="reset", message="linked anew"))
        self._unreached.pop(peer, None)
        if peer in self._dialling:
            self._dialling[peer] = _Dialling(helps=self._dialling[peer].helps)
        self.linked |= {peer}
        self._say(LinkedMore(added=frozenset((peer,))))

    def down(self, event: LinkDown, now_s: float, *, member: bool) -> None:
        """A link went down, or did not come up. `member`: of the view that is installed."""
        peer = event.peer
        self._now_s = now_s
        if peer not in self._known or event.reason == "dropped":  # by this peer itself
            return
        was_linked = peer in self.linked
        self.linked -= {peer}
        if was_linked or member:
            self._suspect(event)
        if was_linked:
            self._say(LinkedMore(removed=frozenset((peer,))))
        dialling = self._dialling.get(peer)
        if dialling is not None and event.reason == "unreachable" and not was_linked:
            self._say_unreached(peer, dialling.relay)
        if dialling is None or dialling.helps:
            self._expect(self._known[peer])
            if dialling is not None:
                self._help_later(peer)
        else:
            delay_s = min(REDIAL_MOST_S, REDIAL_FIRST_S * 2 ** min(dialling.tries, 10))
            dialling.again_s = now_s + delay_s

    # --- what was lost ----------------------------------------------------------------------------

    @property
    def suspects(self) -> list[Suspect]:
        """What a coordinator that has not heard of it should hear again."""
        return list(self._flapped.values())

    def require(self, members: Collection[PeerId]) -> None:
        """Suspects those of a new view that it has no link with and has not suspected yet."""
        for member in members:
            if member != self._peer and member not in self.linked and member not in self._flapped:
                self._suspect(LinkDown(peer=member, reason="reset", message="never linked"))

    def fenced(self) -> None:
        """The engine has answered a fence: what was lost until now, that fence's view settles."""
        self._fenced_flaps = frozenset(self._flapped)

    def settle(self) -> None:
        """A new view: what was reported before the fence was answered is settled by it."""
        for peer in self._fenced_flaps:
            self._flapped.pop(peer, None)
        self._fenced_flaps = frozenset()

    def _suspect(self, event: LinkDown) -> None:
        reason = _DEPARTURES.get(event.reason, Departure.CRASHED)
        suspect = Suspect(
            peer=event.peer,
            reason=reason,
            message=event.message,
            certain=event.reason == "died",
        )
        self._flapped[event.peer] = suspect
        self._fenced_flaps -= {event.peer}
        self._say(suspect)
