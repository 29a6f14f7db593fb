"""A peer's side of membership as a pure state machine: `handle(event, now_s) -> actions`.

It stands between three: the coordinator (a stream that may break and come back), the engine (links,
fences, views) and the session (ready, holding, leave). What it tells the coordinator are facts that
it says again on a new stream, so a broken stream loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from atoll.errors import AtollError, CannotJoin, JobStopped
from atoll.errors import Expelled as ExpelledError
from atoll.membership.detours import Detours
from atoll.membership.fences import Fences
from atoll.membership.messages import (
    UNASKED,
    ChangeKind,
    CoordinatorMessage,
    Departure,
    DrainNotice,
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
    Measure,
    MeasureRequest,
    NotLeader,
    PeerId,
    PeerInfo,
    PeerMessage,
    Peers,
    Ready,
    Refused,
    Register,
    Relayed,
    StopNotice,
    View,
    Welcome,
)
from atoll.membership.parting import Parting
from atoll.membership.peer_events import (
    AppArrived,
    AppDrain,
    AppHolding,
    AppLeave,
    AppMeasure,
    AppReady,
    AppReport,
    Ended,
    EngineFenced,
    EngineInstalled,
    EngineProbed,
    EngineStarted,
    FenceEngine,
    Heard,
    InstallEngine,
    LinkDown,
    LinkUp,
    PeerAction,
    PeerEvent,
    Probe,
    Reconnect,
    Say,
    StartEngine,
    StreamLost,
    StreamUp,
    Tick,
)
from atoll.membership.peer_links import PeerLinks
from atoll.membership.route import Route
from atoll.membership.row import Row

RECONNECT_FIRST_S = 0.05
RECONNECT_MOST_S = 0.5
"""Well within the coordinator's grace, so that its own restart loses nobody."""
SILENT_HEARTBEATS = 5
"""The coordinator answers each heartbeat; so many without an answer are a dead path."""
WELCOME_HEARTBEATS = 2


class PeerMachine:
    """Thread: none of its own; whoever calls it owns it."""

    def __init__(
        self,
        *,
        peer: PeerId,
        island: str,
        job: str,
        software_version: str,
        probes: bool = True,
        coordinators: Sequence[str] = ("",),
        shard: int = 0,
        shards: int = 1,
        leave_s: float = 30.0,
    ) -> None:
        """`shard`: which of the `shards` peers of its island it is. `probes`: whether it measures
        its links when the coordinator says so. `coordinators`: addresses of those that may lead the
        job, the first one to be asked first. `leave_s`: how long it goes on once it is to leave."""
        self.peer = peer
        self.island = island
        self.shard = shard
        self.order = 0
        self.view = View()  # as this peer's ring sees it
        self.starts: Mapping[int, int] = {}
        self.holders: frozenset[PeerId] = frozenset()
        self.peers: tuple[PeerInfo, ...] = ()
        self.donors: frozenset[PeerId] = frozenset()
        self.connected = False
        self.turned_away = ""  # what a coordinator said that does not lead
        self.left = False
        self.ended: AtollError | None = None
        self._register = Register(
            software_version=software_version,
            job=job,
            peer=peer,
            island=island,
            shard=shard,
            shards=shards,
        )
        self._secret = b""
        self._endpoints: tuple[Endpoint, ...] = ()
        self._heartbeat_s = 1.0
        self._said_s = 0.0
        self._heard_s = 0.0
        self._retries = 0
        self._route = Route(coordinators)
        self._stream = False
        self._parting = Parting(leave_s)
        self._ready = False
        self._holding = False
        self._pending: dict[int, Install] = {}  # with the ring's part of the view
        self._newest_epoch = 0  # of all Install messages
        self._relayed: tuple[Relayed, ...] = ()
        self._detours = Detours(peer, act=self._act)
        self._links = PeerLinks(peer, say=self._say, act=self._act, detours=self._detours)
        self._row = Row(peer, probes=probes)
        self._fences = Fences()
        self._actions: list[PeerAction] = []
        self._now_s = 0.0

    @property
    def member(self) -> bool:
        """Whether this peer is in the view that its engine has installed."""
        return self.peer in self.view.ids

    @property
    def coordinator(self) -> str:
        """The address of the one that is asked now."""
        return self._route.current

    @property
    def linked(self) -> frozenset[PeerId]:
        """Those with whom a link is up."""
        return self._links.linked

    @property
    def draining(self) -> str:
        """It is to leave once its round is over, and why; empty: it may stay."""
        return self._parting.why

    @property
    def redials(self) -> bool:
        """Whether it makes a link anew when time has passed."""
        return self._links.redials

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
                self._links.up(peer)
            case LinkDown(peer=peer):
                if event.reason == "died" and peer in self.view.ids and self._at_rest():
                    # An abort is certain to follow: its fence need not be waited for.
                    self._fences.freeze(self._now_s)
                    self._actions.append(FenceEngine(attempt=UNASKED, kind=ChangeKind.ABORT))
                self._links.down(event, self._now_s, member=peer in self.view.ids)
            case EngineFenced(attempt=attempt, epoch=epoch, progress=progress):
                self._fenced(Fenced(attempt=attempt, epoch=epoch, progress=progress))
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
            case AppDrain(message=text):
                self._drain(text)
            case AppReport(report=report):
                self._say(report)
            case AppMeasure():
                self._say(MeasureRequest())
            case AppArrived(times=times):
                if (row := self._row.corrected(times, self.view.epoch)) is not None:
                    self._say(row)
            case EngineProbed(peer=peer, figures=figures):
                self._row.probed(peer, figures)
                self._measure()
            case Tick():
                self._tick()
            case _:
                assert_never(event)

    # --- the stream -------------------------------------------------------------------------------

    def _act(self, action: PeerAction) -> None:
        self._actions.append(action)

    def _say(self, message: PeerMessage) -> None:
        if self._stream and not self._fences.takes(message):
            self._said_s = self._now_s
            self._actions.append(Say(message=message))

    def _stream_up(self) -> None:
        """Says all that a coordinator may not have heard, in an order that never misleads."""
        self._stream = True
        self._fences.release()  # all of it is in what follows
        self._heard_s = self._now_s
        self._say(replace(self._register, installed_epoch=self.view.epoch))
        if not self._endpoints:
            return
        self._say(Listening(endpoints=self._endpoints))
        # Before the first Linked, a Suspect says that something was lost, not that it still is.
        for suspect in self._links.suspects:
            self._say(suspect)
        self._say(Linked(peers=self.linked))
        for unreached in self._links.unreached:
            self._say(unreached)
        if self._ready:
            self._say(Ready())
        if self._holding:
            self._say(Holding())
        if (row := self._row.said) is not None:
            self._say(row)
        if self._parting.reason:
            self._say(Leave(reason=self._parting.reason))

    def _stream_lost(self, leader: str = "") -> None:
        """`leader`: where it was told to go instead."""
        self._stream = self.connected = False
        if self.left:
            return
        delay_s = min(RECONNECT_MOST_S, RECONNECT_FIRST_S * 2 ** min(self._retries, 10))
        self._retries += 1
        coordinator = self._route.failed(leader)
        self._actions.append(Reconnect(at_s=self._now_s + delay_s, coordinator=coordinator))

    def _end(self, error: AtollError) -> None:
        self.ended = error
        self._actions.append(Ended(error=error))

    def _tick(self) -> None:
        for word in self._fences.late(self._now_s):
            self._say(word)
        if self._stream:
            if self._now_s - self._heard_s > self._patience() * self._heartbeat_s:
                self._stream_lost()
            elif self.connected and self._now_s - self._said_s >= self._heartbeat_s:
                self._say(Heartbeat())
        self._measure()
        self._links.tick(self._now_s)
        if self._parting.over(self._now_s):
            self._end(self._parting.farewell())
        elif self._parting.round_over(self._now_s):
            self._leave(Departure.DRAINED)

    def _patience(self) -> int:
        """In heartbeats. Where there are others to ask, one that does not welcome is left soon."""
        return (
            SILENT_HEARTBEATS if self.connected or not self._route.several else WELCOME_HEARTBEATS
        )

    # --- the coordinator --------------------------------------------------------------------------

    def _hear(self, message: CoordinatorMessage) -> None:
        match message:
            case Welcome():
                self._welcome(message)
            case Peers(peers=peers, holders=holders, relayed=relayed):
                self.peers, self.donors, self._relayed = peers, holders, relayed
                self._meet()
            case Fence():
                self._fence(message)
            case Install():
                self._install(message)
            case Measure():
                self._row.begin(message, self.view, self._now_s)
                self._measure()
            case Expelled(reason=reason, message=text):
                self._end(ExpelledError(reason.value, text))
            case Refused(message=text):
                # A peer that is known may be refused while its old stream seems alive.
                if not self._secret or self.view.epoch:
                    self._end(CannotJoin(text))
            case StopNotice(message=text):
                self._say(Leave(reason=Departure.STOPPED))
                self._end(JobStopped(f"the job was stopped: {text}"))
            case DrainNotice(message=text):
                self._drain(text)
            case NotLeader(leader=leader, message=text):
                self.turned_away = text
                self._stream_lost(leader)
            case Heartbeat():
                pass
            case _:
                assert_never(message)

    def _welcome(self, message: Welcome) -> None:
        if self._secret and message.secret != self._secret:
            self._end(CannotJoin("the coordinator was started anew without its store; start again"))
            return
        self.connected = True
        self.turned_away = ""
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
            self._fences.view_comes()
            self._links.settle()
        ring = message.view.ring(self.shard)
        self._pending[epoch] = replace(message, view=ring)
        self._actions.append(
            InstallEngine(
                view=ring,
                starts=message.starts,
                kind=message.kind,
                topology=message.topology,
            )
        )

    def _fence(self, message: Fence) -> None:
        answer = self._fences.answer_to(message)
        if answer is not None:
            self._fenced(answer)
        elif self._fences.heard(message):
            self._act(FenceEngine(attempt=message.attempt, kind=message.kind))

    def _fenced(self, answer: Fenced) -> None:
        if answer.attempt != UNASKED:
            self._links.fenced()
        self._fences.answered(answer)
        for word in (*self._fences.release(), answer):
            self._say(word)

    def _at_rest(self) -> bool:
        """Connected, and nothing of a change of the view has been heard of. With one under way the
        engine may be in the next view already, which the dead may not be in: nothing would ever
        end a freeze there."""
        return self.connected and self._fences.settled and not self._pending

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
            if self._parting.reason is Departure.DRAINED:
                self._end(self._parting.farewell())
            elif not self._parting.reason:
                text = "the others go on without this island: another shard of it leaves or is gone"
                self._end(ExpelledError(Departure.SHARD_LOST.value, text))
        self._links.require(self.view.ids)
        self._meet()

    def _leave(self, reason: Departure) -> None:
        if self._parting.reason or self.left:
            return
        self._parting.reason = reason
        self._say(Leave(reason=reason))
        if not self.view.epoch and not self._newest_epoch:
            # It is in no view that it knows of; should it be in one by now, it is as good as lost.
            self.left = True
            if reason is Departure.DRAINED:
                self._end(self._parting.farewell())

    def _drain(self, message: str) -> None:
        """It goes on to the end of its round, which is for its program to say, or for the time."""
        new = self._parting.asked(message, self._now_s)
        if new and not self.view.epoch and not self._newest_epoch:
            self._leave(Departure.DRAINED)

    def _measure(self) -> None:
        for peer, burst_s in self._row.due(self.view, self.linked, self._now_s):
            self._actions.append(Probe(peer=peer, burst_s=burst_s))
        row = self._row.finished()
        if row is not None:
            self._say(row)

    # --- the engine -------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Makes the engine know those who listen. Members stay known until a view lacks them: what
        they said last may still be under way."""
        listed = {info.id: info for info in self.peers if info.id != self.peer}
        kept = set(self.view.ids).union(*(m.view.ids for m in self._pending.values()))
        for peer in self._links.forget_all_but(kept.union(listed)):
            self._row.forget(peer)
        self._detours.plan(self._relayed, self.peers, self._secret)
        for info in listed.values():
            self._links.meet(info, self.order)
