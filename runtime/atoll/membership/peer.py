"""A peer's side of membership as a pure state machine: `handle(event, now_s) -> actions`.

It stands between three: the coordinator (a stream that may break and come back), the engine (links,
fences, views) and the session (ready, holding, leave). What it tells the coordinator are facts that
it says again on a new stream, so a broken stream loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from atoll.errors import AtollError, CannotJoin, SessionClosed
from atoll.errors import Expelled as ExpelledError
from atoll.membership.messages import (
    CoordinatorMessage,
    Departure,
    Endpoint,
    Expelled,
    Fence,
    Fenced,
    Heartbeat,
    Holding,
    Install,
    Installed,
    Leave,
    Linked,
    Listening,
    PeerId,
    PeerInfo,
    PeerMessage,
    Peers,
    Ready,
    Refused,
    Register,
    StopNotice,
    Suspect,
    View,
    Welcome,
)
from atoll.membership.peer_events import (
    AppHolding,
    AppLeave,
    AppReady,
    AppReport,
    Dial,
    Drop,
    Ended,
    EngineFenced,
    EngineInstalled,
    EngineStarted,
    Expect,
    FenceEngine,
    Heard,
    InstallEngine,
    LinkDown,
    LinkUp,
    PeerAction,
    PeerEvent,
    Reconnect,
    Say,
    StartEngine,
    StreamLost,
    StreamUp,
    Tick,
)

RECONNECT_FIRST_S = 0.05
RECONNECT_MOST_S = 0.5
"""Well within the coordinator's grace, so that its own restart loses nobody."""
REDIAL_FIRST_S = 0.1
REDIAL_MOST_S = 5.0
REDIALS = 50
"""In a row without a link; about four minutes, besides what each dial takes."""
SILENT_HEARTBEATS = 5
"""The coordinator answers each heartbeat; so many without an answer are a dead path."""

_DEPARTURES = {
    "unreachable": Departure.UNREACHABLE,
    "silent": Departure.SILENT,
    "protocol": Departure.PROTOCOL,
    "bye": Departure.FINISHED,
}


@dataclass(slots=True)
class _Dialling:
    """How a link to an older peer is being made."""

    tries: int = 0
    again_s: float | None = None


class PeerMachine:
    """Thread: none of its own; whoever calls it owns it."""

    def __init__(self, *, peer: PeerId, island: str, job: str, software_version: str) -> None:
        self.peer = peer
        self.island = island
        self.order = 0
        self.view = View()
        self.starts: Mapping[int, int] = {}
        self.holders: frozenset[PeerId] = frozenset()
        self.peers: tuple[PeerInfo, ...] = ()
        self.donors: frozenset[PeerId] = frozenset()
        self.linked: frozenset[PeerId] = frozenset()
        self.connected = False
        self.left = False
        self.ended: AtollError | None = None
        self._job = job
        self._software_version = software_version
        self._secret = b""
        self._endpoints: tuple[Endpoint, ...] = ()
        self._heartbeat_s = 1.0
        self._said_s = 0.0
        self._heard_s = 0.0
        self._retries = 0
        self._stream = False
        self._ready = False
        self._holding = False
        self._leaving: Departure | None = None
        self._pending: dict[int, Install] = {}
        self._newest_epoch = 0  # of all Install messages
        self._dialling: dict[PeerId, _Dialling] = {}
        self._known: dict[PeerId, PeerInfo] = {}  # those the engine was told of
        self._flapped: dict[PeerId, Suspect] = {}  # links lost since the last fence's answer
        self._fenced_flaps: frozenset[PeerId] = frozenset()
        self._actions: list[PeerAction] = []
        self._now_s = 0.0

    @property
    def member(self) -> bool:
        """Whether this peer is in the view that its engine has installed."""
        return self.peer in self.view.ids

    @property
    def listening(self) -> bool:
        """Whether the coordinator has welcomed it and the others are told of it."""
        return bool(self._endpoints)

    def handle(self, event: PeerEvent, now_s: float) -> list[PeerAction]:
        """Returns what to do about an event at `now_s`, seconds of a clock that never goes back."""
        self._now_s = now_s
        if self.ended is None:
            self._dispatch(event)
        actions, self._actions = self._actions, []
        return actions

    def _dispatch(self, event: PeerEvent) -> None:
        match event:
            case StreamUp():
                self._stream_up()
            case StreamLost():
                self._stream_lost()
            case Heard(message=message):
                self._heard_s = self._now_s
                self._hear(message)
            case EngineStarted(endpoints=endpoints):
                self._endpoints = endpoints
                self._say(Listening(endpoints=endpoints))
            case LinkUp(peer=peer):
                self._link_up(peer)
            case LinkDown():
                self._link_down(event)
            case EngineFenced(attempt=attempt, epoch=epoch, progress=progress):
                self._fenced_flaps = frozenset(self._flapped)
                self._say(Fenced(attempt=attempt, epoch=epoch, progress=progress))
            case EngineInstalled(epoch=epoch):
                self._installed(epoch)
            case AppReady():
                self._ready = True
                self._say(Ready())
            case AppHolding(epoch=epoch):
                if epoch == self.view.epoch and self.member:
                    self._holding = True
                    self._say(Holding())
            case AppLeave(reason=reason):
                self._leave(reason)
            case AppReport(report=report):
                self._say(report)
            case Tick():
                self._tick()
            case _:
                assert_never(event)

    # --- the stream -------------------------------------------------------------------------------

    def _say(self, message: PeerMessage) -> None:
        if self._stream:
            self._said_s = self._now_s
            self._actions.append(Say(message=message))

    def _stream_up(self) -> None:
        """Says all that a coordinator may not have heard, in an order that never misleads."""
        self._stream = True
        self._heard_s = self._now_s
        self._say(
            Register(
                software_version=self._software_version,
                job=self._job,
                peer=self.peer,
                island=self.island,
                installed_epoch=self.view.epoch,
            )
        )
        if not self._endpoints:
            return
        self._say(Listening(endpoints=self._endpoints))
        # Before the first Linked, a Suspect says that something was lost, not that it still is.
        for suspect in self._flapped.values():
            self._say(suspect)
        self._say(Linked(peers=self.linked))
        if self._ready:
            self._say(Ready())
        if self._holding:
            self._say(Holding())
        if self._leaving:
            self._say(Leave(reason=self._leaving))

    def _stream_lost(self) -> None:
        self._stream = self.connected = False
        if self.left:
            return
        delay_s = min(RECONNECT_MOST_S, RECONNECT_FIRST_S * 2 ** min(self._retries, 10))
        self._retries += 1
        self._actions.append(Reconnect(at_s=self._now_s + delay_s))

    def _end(self, error: AtollError) -> None:
        self.ended = error
        self._actions.append(Ended(error=error))

    def _tick(self) -> None:
        if self._stream:
            if self._now_s - self._heard_s > SILENT_HEARTBEATS * self._heartbeat_s:
                self._stream_lost()
            elif self.connected and self._now_s - self._said_s >= self._heartbeat_s:
                self._say(Heartbeat())
        for peer, dialling in self._dialling.items():
            if dialling.again_s is not None and self._now_s >= dialling.again_s:
                self._dial(self._known[peer], dialling)

    # --- the coordinator --------------------------------------------------------------------------

    def _hear(self, message: CoordinatorMessage) -> None:
        match message:
            case Welcome():
                self._welcome(message)
            case Peers(peers=peers, holders=holders):
                self.peers, self.donors = peers, holders
                self._meet()
            case Fence(attempt=attempt, kind=kind):
                self._actions.append(FenceEngine(attempt=attempt, kind=kind))
            case Install():
                self._install(message)
            case Expelled(reason=reason, message=text):
                self._end(ExpelledError(reason.value, text))
            case Refused(message=text):
                # A peer that is known may be refused while its old stream seems alive.
                if not self._secret or self.view.epoch:
                    self._end(CannotJoin(text))
            case StopNotice(message=text):
                self._say(Leave(reason=Departure.STOPPED))
                self._end(SessionClosed(f"the job was stopped: {text}"))
            case Heartbeat():
                pass
            case _:
                assert_never(message)

    def _welcome(self, message: Welcome) -> None:
        if self._secret and message.secret != self._secret:
            self._end(CannotJoin("the coordinator was started anew without its store; start again"))
            return
        self.connected = True
        self._retries = 0
        self.order = message.order
        self._heartbeat_s = message.heartbeat_s
        if not self._secret:
            self._secret = message.secret
            self._actions.append(StartEngine(secret=message.secret))

    def _install(self, message: Install) -> None:
        epoch = message.view.epoch
        if epoch <= self.view.epoch:
            self._say(Installed(epoch=self.view.epoch))
            return
        if epoch > self._newest_epoch:
            self._newest_epoch = epoch
            # What was reported before the fence was answered is settled by this view.
            for peer in self._fenced_flaps:
                self._flapped.pop(peer, None)
            self._fenced_flaps = frozenset()
        self._pending[epoch] = message
        self._actions.append(
            InstallEngine(view=message.view, starts=message.starts, kind=message.kind)
        )

    def _installed(self, epoch: int) -> None:
        message = self._pending.get(epoch)
        if message is None or epoch <= self.view.epoch:
            return
        self._pending = {other: m for other, m in self._pending.items() if other > epoch}
        self.view, self.starts, self.holders = message.view, message.starts, message.holders
        self._holding = self.peer in self.holders
        self._say(Installed(epoch=epoch))
        if not self.member:
            self.left = True
        for member in self.view.ids:
            if member != self.peer and member not in self.linked and member not in self._flapped:
                self._suspect(LinkDown(peer=member, reason="reset", message="never linked"))
        self._meet()

    def _leave(self, reason: Departure) -> None:
        if self._leaving or self.left:
            return
        self._leaving = reason
        self._say(Leave(reason=reason))
        if not self.view.epoch and not self._newest_epoch:
            # It is in no view that it knows of; should it be in one by now, it is as good as lost.
            self.left = True

    # --- the engine -------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Makes the engine know those who listen. Members stay known until a view lacks them: what
        they said last may still be under way."""
        listed = {info.id: info for info in self.peers if info.id != self.peer}
        kept = set(self.view.ids).union(*(m.view.ids for m in self._pending.values()))
        for peer in [p for p in self._known if p not in listed and p not in kept]:
            del self._known[peer]
            self._dialling.pop(peer, None)
            self._flapped.pop(peer, None)
            if peer in self.linked:
                self.linked -= {peer}
                self._say(Linked(peers=self.linked))
            self._actions.append(Drop(peer=peer))
        for peer, info in listed.items():
            new = peer not in self._known
            self._known[peer] = info
            # A coordinator that had given this peer up may have welcomed it with another order.
            if info.order < self.order and peer not in self._dialling:
                self._dialling[peer] = _Dialling()
                if peer not in self.linked:
                    self._dial(info, self._dialling[peer])
            elif info.order > self.order and (new or peer in self._dialling):
                self._dialling.pop(peer, None)
                self._actions.append(Expect(peer=peer))

    def _dial(self, info: PeerInfo, dialling: _Dialling) -> None:
        dialling.again_s = None
        if info.endpoints and dialling.tries < REDIALS:
            endpoint = info.endpoints[dialling.tries % len(info.endpoints)]
            dialling.tries += 1
            self._actions.append(Dial(peer=info.id, endpoint=endpoint))

    def _link_up(self, peer: PeerId) -> None:
        if peer not in self._known:
            return
        if peer in self.linked:  # another link has taken the place of the one that was there
            self._suspect(LinkDown(peer=peer, reason="reset", message="linked anew"))
        if peer in self._dialling:
            self._dialling[peer] = _Dialling()
        self.linked |= {peer}
        self._say(Linked(peers=self.linked))

    def _link_down(self, event: LinkDown) -> None:
        peer = event.peer
        if peer not in self._known or event.reason == "dropped":  # by this peer itself
            return
        was_linked = peer in self.linked
        self.linked -= {peer}
        if was_linked or peer in self.view.ids:
            self._suspect(event)
        if was_linked:
            self._say(Linked(peers=self.linked))
        dialling = self._dialling.get(peer)
        if dialling is None:
            self._actions.append(Expect(peer=peer))
        else:
            delay_s = min(REDIAL_MOST_S, REDIAL_FIRST_S * 2 ** min(dialling.tries, 10))
            dialling.again_s = self._now_s + delay_s

    def _suspect(self, event: LinkDown) -> None:
        reason = _DEPARTURES.get(event.reason, Departure.CRASHED)
        suspect = Suspect(peer=event.peer, reason=reason, message=event.message)
        self._flapped[event.peer] = suspect
        self._fenced_flaps -= {event.peer}
        self._say(suspect)
