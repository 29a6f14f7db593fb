"""The coordinator as a pure state machine: `handle(event, now_s) -> actions`.

    machine = CoordinatorMachine(CoordinatorOptions(job="reef"), secret=32 random bytes)
    for action in machine.handle(Received(stream=1, message=Register(...)), now_s=0.0):
        ...  # Send, Close, Persist, Tell

Actions are to be carried out in order; a Persist before those that follow it. docs/design.md 3.1.
"""

from __future__ import annotations

from typing import assert_never

from atoll.membership.events import (
    CoordinatorAction,
    CoordinatorEvent,
    CoordinatorOptions,
    JobEvent,
    JobStatus,
    PeerStatus,
    Persist,
    Received,
    Snapshot,
    StopRequested,
    StreamLost,
    Tick,
)
from atoll.membership.messages import (
    Departure,
    Fenced,
    Heartbeat,
    Holding,
    Installed,
    Leave,
    Linked,
    Listening,
    PeerId,
    PeerMessage,
    Ready,
    Refused,
    Register,
    Report,
    StopNotice,
    Suspect,
    View,
)
from atoll.membership.registration import register
from atoll.membership.reports import Reports
from atoll.membership.state import Peer, State
from atoll.membership.view_change import (
    advance,
    on_fenced,
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
            case Received(stream=stream, message=message):
                self._receive(stream, message)
            case StreamLost(stream=stream):
                self._lose_stream(stream)
            case Tick():
                pass
            case StopRequested(message=message):
                self._stop(message)
            case _:
                assert_never(event)
        advance(state)
        if state.peers_changed:
            state.peers_changed = False
            state.broadcast_peers()
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
        )

    def _peer_status(self, peer: Peer, now_s: float) -> PeerStatus:
        if peer.leaving:
            name = "leaving"
        elif self._state.is_member(peer.id):
            name = "member"
        else:
            name = "ready" if peer.ready else "registered"
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
        elif now_s - self._last_s > state.options.stall_s:
            self._forgive(now_s - self._last_s)
        self._last_s = state.now_s = now_s

    def _forgive(self, gap_s: float) -> None:
        state = self._state
        for peer in state.peers.values():
            peer.heard_s += gap_s
            if peer.lost_s is not None:
                peer.lost_s += gap_s
            if peer.listening_s is not None:
                peer.listening_s += gap_s
        if state.change is not None:
            state.change.since_s += gap_s
        state.severed = {pair: since_s + gap_s for pair, since_s in state.severed.items()}

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
                peer.listening_s = state.now_s if peer.listening_s is None else peer.listening_s
                state.set_info(peer, endpoints=endpoints)
                state.peers_changed = True
            case Heartbeat():
                state.send(peer, message)
            case Linked(peers=linked):
                on_linked(state, peer, linked)
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
            case Leave(reason=reason):
                self._leave(peer, reason)
            case Report():
                self._reports.add(state, peer, message)
            case _:
                assert_never(message)

    def _hold(self, peer: Peer) -> None:
        """What it fetched in a view before the state was lost is another state."""
        state = self._state
        if state.is_member(peer.id) and peer.installed_epoch >= state.state_epoch:
            if peer.id not in state.holders:
                state.dirty = state.peers_changed = True
            state.holders |= {peer.id}

    def _leave(self, peer: Peer, reason: Departure) -> None:
        state = self._state
        peer.leaving = reason
        on_leave(state, peer)
        outgoing = any(peer is p for p in state.outgoing())
        if state.stopping or not (state.is_member(peer.id) or outgoing):
            state.depart(peer, reason, "it left before it was a member")

    def _lose_stream(self, stream: int) -> None:
        state = self._state
        state.ended_streams.discard(stream)
        peer = state.peers.get(state.streams.pop(stream, b""))
        if peer is None:
            return
        peer.stream = None
        peer.lost_s = state.now_s
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
