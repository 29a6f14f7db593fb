"""The coordinator as a pure state machine: `handle(event, now_s) -> actions`.

    machine = CoordinatorMachine(CoordinatorOptions(job="reef"), secret=32 random bytes)
    for action in machine.handle(Received(stream=1, message=Register(...)), now_s=0.0):
        ...  # Send, Close, Persist, Tell

Actions are to be carried out in order; a Persist before those that follow it. docs/design.md 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from atoll.membership import orders, trust
from atoll.membership.answers import on_fenced
from atoll.membership.events import (
    CoordinatorAction,
    CoordinatorEvent,
    CoordinatorOptions,
    DrainRequested,
    JobEvent,
    JobStatus,
    KillRequested,
    MeasureRequested,
    PeerStatus,
    Persist,
    Received,
    Redeem,
    Revoke,
    Snapshot,
    StopRequested,
    StreamLost,
    Tick,
)
from atoll.membership.measuring import on_links
from atoll.membership.messages import (
    Departure,
    Fenced,
    Heartbeat,
    Holding,
    Installed,
    Leave,
    Linked,
    LinkedMore,
    LinkFigures,
    Links,
    Listening,
    MeasureRequest,
    PeerId,
    PeerMessage,
    Ready,
    Refused,
    Register,
    Report,
    StopNotice,
    Suspect,
    Unreached,
    View,
)
from atoll.membership.records import Peer
from atoll.membership.registration import register
from atoll.membership.relays import on_unreached
from atoll.membership.reports import Reports
from atoll.membership.state import State
from atoll.membership.view_change import (
    FEW,
    LOOK_S,
    advance,
    on_installed,
    on_leave,
    on_linked,
    on_suspect,
)


class CoordinatorMachine:
    """Thread: none of its own; whoever calls it owns it."""

    def __init__(
        self, options: CoordinatorOptions, *, secret: bytes, snapshot: Snapshot | None = None
    ) -> None:
        """`secret`: 32 random bytes for the data plane; a snapshot brings its own."""
        self._state = State(options, secret, snapshot)
        self._reports = Reports()
        self._last_s: float | None = None
        if snapshot is None:
            self._state.dirty = True

    def handle(self, event: CoordinatorEvent, now_s: float) -> list[CoordinatorAction]:
        """Returns what to do about an event at `now_s`, seconds of a clock that never goes back."""
        state = self._state
        self._set_clock(now_s)
        match event:
            case Received(stream=stream, message=message, also=also):
                for one in (message, *also):
                    self._receive(stream, one)
            case StreamLost(stream=stream):
                self._lose_stream(stream)
            case Tick():
                pass
            case StopRequested(message=message):
                self._stop(message)
            case DrainRequested():
                orders.drain(state, event)
            case KillRequested():
                orders.kill(state, event)
            case MeasureRequested():
                state.measure_asked = True
            case Redeem():
                trust.redeem(state, event)
            case Revoke():
                trust.revoke(state, event)
            case _:
                assert_never(event)
        advance(state)
        if state.peers_changed:
            # When many come at once, one list tells of several: to take it in costs each of them.
            if len(state.peers) <= FEW or now_s >= state.list_s:
                state.peers_changed = False
                state.list_s = now_s + LOOK_S
                state.broadcast_peers()
        elif state.uninformed:
            state.inform()
        actions = state.actions
        state.actions = []
        if state.dirty:
            state.dirty = False
            actions.insert(0, Persist(snapshot=state.snapshot()))
        return actions

    # --- questions --------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The newest view, which some members may not have installed yet."""
        return self._state.newest.view

    @property
    def holders(self) -> frozenset[PeerId]:
        """Members that are known to hold the shared state."""
        return self._state.holders

    @property
    def idle(self) -> bool:
        """Whether all members have installed the newest view and no change is under way."""
        return self._state.change is None and not self._state.broken

    @property
    def stopping(self) -> bool:
        """Whether the job was stopped."""
        return bool(self._state.stopping)

    def redeemed_by(self, token: str) -> str | None:
        """For which key a token was used; None: it was not."""
        use = self._state.used_tokens.get(token)
        return None if use is None else use[1]

    @property
    def revoked(self) -> Mapping[str, float]:
        """By name, until when (Unix time) its certificates and tokens are void."""
        return self._state.revoked

    @property
    def islands(self) -> frozenset[str]:
        """Names of those of which a peer is registered."""
        return frozenset(self._state.islands)

    def events(self, after: int) -> list[JobEvent]:
        """Those events that are kept and whose number is greater than `after`."""
        return [event for event in self._state.events if event.number > after]

    def status(self, now_s: float) -> JobStatus:
        """What the job looks like now."""
        state = self._state
        view_changes, departures = state.counters()
        return JobStatus(
            job=state.options.job,
            epoch=state.newest.view.epoch,
            members=state.newest.view.ids,
            peers=tuple(self._peer_status(peer, now_s) for peer in state.peers.values()),
            round=self._reports.round,
            loss=self._reports.loss,
            parity_failures=self._reports.parity_failures,
            min_islands=state.options.min_islands,
            view_changes=view_changes,
            departures=departures,
            islands=tuple(state.names),
            shards=state.shards,
            departed=dict(state.ends.known),
            relayed=state.relays.all,
            unreached=state.relays.unreached,
        )

    def figures(self) -> tuple[int, Mapping[tuple[PeerId, PeerId], LinkFigures]]:
        """What was measured of links, and a number that grows when it changes."""
        return self._state.figures_number, self._state.figures

    def measuring(self) -> tuple[int, bool]:
        """How many measurements were begun, and whether one is under way or asked for."""
        state = self._state
        return state.measurements, state.measurement is not None or state.measure_asked

    def _peer_status(self, peer: Peer, now_s: float) -> PeerStatus:
        if peer.leaving:
            name = "leaving"
        elif peer.draining:
            name = "draining"
        elif self._state.is_member(peer.id):
            name = "member"
        else:
            complete = self._state.islands[peer.info.island].complete
            name = "ready" if peer.ready and complete else "registered"
        return PeerStatus(
            info=peer.info,
            state=name,
            heard_ago_s=max(0.0, now_s - peer.heard_s),
            connected=peer.stream is not None,
            report=peer.report,
        )

    # --- events -----------------------------------------------------------------------------------

    def _set_clock(self, now_s: float) -> None:
        """A long gap is the coordinator's own pause, which nobody else is to be blamed for."""
        state = self._state
        if self._last_s is None:
            for peer in state.peers.values():  # restored: their grace begins now
                peer.heard_s = peer.lost_s = now_s
            state.look_at_all(now_s)
            for island in state.islands.values():
                island.since_s = now_s
                island.leaving_s = None if island.end is None else now_s
        elif now_s - self._last_s > state.options.stall_s:
            self._forgive(now_s - self._last_s)
        self._last_s = state.now_s = now_s

    def _forgive(self, gap_s: float) -> None:
        state = self._state
        state.look_at_all(state.now_s)
        for peer in state.peers.values():
            peer.heard_s += gap_s
            if peer.lost_s is not None:
                peer.lost_s += gap_s
            if peer.listening_s is not None:
                peer.listening_s += gap_s
        if state.change is not None:
            state.change.since_s += gap_s
        if state.measurement is not None:
            state.measurement.until_s += gap_s
        for island in state.islands.values():
            island.since_s += gap_s
            if island.leaving_s is not None:
                island.leaving_s += gap_s
        state.severed = {pair: since_s + gap_s for pair, since_s in state.severed.items()}
        relays = state.relays
        relays.named_s = {pair: at_s + gap_s for pair, at_s in relays.named_s.items()}

    def _receive(self, stream: int, message: PeerMessage) -> None:
        state = self._state
        if stream in state.ended_streams:
            return
        peer = state.peers.get(state.streams.get(stream, b""))
        if peer is None:
            if isinstance(message, Register):
                register(state, stream, message)
            else:
                state.close(stream, Refused(message="the first message must be Register"))
            return
        peer.heard_s = state.now_s
        match message:
            case Register():
                state.lose(peer, Departure.PROTOCOL, "it registered twice on one connection")
            case Listening(endpoints=endpoints):
                if peer.listening_s is None or endpoints != peer.info.endpoints:
                    state.look_at_all(state.now_s + state.options.join_timeout_s)
                    state.set_info(peer, endpoints=endpoints)
                    state.peers_changed = True
                if peer.listening_s is None:
                    peer.listening_s = state.now_s
            case Heartbeat():
                state.send(peer, message)
            case Linked(peers=linked):
                on_linked(state, peer, state.places.admit_all(linked))
            case LinkedMore(added=added, removed=removed):
                places = state.places
                linked_before = peer.linked or 0
                linked_now = (linked_before | places.admit_all(added)) & ~places.bits(removed)
                on_linked(state, peer, linked_now)
            case Ready():
                peer.ready = peer.listening_s is not None
            case Holding():
                self._hold(peer)
            case Fenced():
                on_fenced(state, peer, message)
            case Installed(epoch=epoch):
                on_installed(state, peer, epoch)
            case Suspect():
                on_suspect(state, peer, message)
            case Unreached():
                on_unreached(state, peer, message)
            case Leave(reason=reason):
                self._leave(peer, reason)
            case Links():
                on_links(state, peer, message)
            case MeasureRequest():
                state.measure_asked = True
            case Report():
                self._reports.add(state, peer, message)
            case _:
                assert_never(message)

    def _hold(self, peer: Peer) -> None:
        """What it fetched in a view before the state was lost is another state. An island holds the
        state when all its shards do, each that of its ring."""
        state = self._state
        if not state.is_member(peer.id) or peer.installed_epoch < state.state_epoch:
            return
        peer.held_epoch = peer.installed_epoch
        island = state.islands[peer.info.island]
        peers = island.peers.values()
        if island.whole and all(p.held_epoch >= max(1, state.state_epoch) for p in peers):
            if peer.id not in state.holders:
                state.dirty = state.peers_changed = True
            state.holders |= {p.id for p in peers}

    def _leave(self, peer: Peer, reason: Departure) -> None:
        state = self._state
        peer.leaving = reason
        state.parting.add(peer.info.island)
        state.look_at_all(state.now_s)
        island = state.islands[peer.info.island]
        if island.leaving_s is None:
            island.leaving_s = state.now_s
        if state.shards > 1:
            state.watched.add(island.name)
        on_leave(state, peer)
        outgoing = any(peer is p for p in state.outgoing())
        if state.stopping or not (state.is_member(peer.id) or outgoing):
            said = state.stopping or peer.left("it left before it was a member")
            state.depart(peer, reason, said)

    def _lose_stream(self, stream: int) -> None:
        state = self._state
        state.ended_streams.discard(stream)
        peer = state.peers.get(state.streams.pop(stream, b""))
        if peer is None:
            return
        peer.stream = None
        peer.lost_s = state.now_s
        state.look_at_all(state.now_s + (0.0 if peer.leaving else state.options.reconnect_grace_s))
        if state.stopping:
            state.depart(peer, Departure.STOPPED, state.stopping)

    def _stop(self, message: str) -> None:
        state = self._state
        if state.stopping:
            return
        state.stopping = message or "stopped by the operator"
        state.tell("stopping", state.stopping)
        for peer in list(state.peers.values()):
            if peer.stream is None:
                state.depart(peer, Departure.STOPPED, state.stopping)
            else:
                state.send(peer, StopNotice(message=state.stopping))
