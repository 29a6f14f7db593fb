"""A simulated training process: the real peer machine, a modelled engine, a small program.

The program fetches the shared state, says so, and then runs op after op on two channels. Ops on
channel 0 change the shared state, those on channel 1 do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from atoll.membership.messages import Departure, Endpoint, PeerId
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    AppHolding,
    AppLeave,
    AppReady,
    Dial,
    Drop,
    Ended,
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
from atoll.sim.engine import Engine, Frame, Op
from atoll.sim.network import Link, State, Stream
from atoll.sim.world import Fifo

if TYPE_CHECKING:
    from atoll.sim.job import Job

TICK_S = 0.1
CHANNELS = (0, 1)


class Process:
    """One incarnation of an island."""

    def __init__(self, job: Job, name: str, number: int) -> None:
        self.job, self.world = job, job.world
        self.name = f"{name}{number}"
        self.id: PeerId = self.name.encode().ljust(16, b".")
        self.machine = PeerMachine(
            peer=self.id, island=name, job=job.options.job, software_version="sim"
        )
        self.alive = True
        self.leaving = False
        self.stream: Stream | None = None
        self.links: dict[PeerId, Link] = {}
        self.wanted: set[PeerId] = set()
        self.state: str | None = None  # digest of the shared state, and
        self.revision = -1  # how many ops of channel 0 it has absorbed
        self.confirmed = False  # the coordinator knows that it holds the state
        self.engine = Engine(
            self.id,
            send=self._send_frame,
            emit=lambda event: self._events.push(lambda: self.deliver(lambda: self.feed(event))),
            complete=self._complete,
            watcher=job.checks,
        )
        self._to_engine = Fifo(self.world, 0.0, 0.002)
        self._events = Fifo(self.world, 0.0, 0.002)
        self._frozen: list[Callable[[], None]] | None = None
        self._busy: set[int] = set()  # channels with an op submitted
        self._asked_s = -1.0
        self._said_ready = False
        self._state_epoch = 0
        self._connect()
        self.world.after(TICK_S, self._tick)

    # --- life -------------------------------------------------------------------------------------

    def deliver(self, action: Callable[[], None]) -> None:
        """Runs now, when the process thaws, or never."""
        if not self.alive:
            return
        if self._frozen is not None:
            self._frozen.append(action)
        else:
            action()

    def freeze(self) -> None:
        if self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        actions, self._frozen = self._frozen or [], None
        for action in actions:
            self.deliver(action)

    @property
    def frozen(self) -> bool:
        return self._frozen is not None

    def die(self, *, flush: bool = False) -> None:
        """flush: what it has sent still arrives."""
        if not self.alive:
            return
        self.alive = False
        self.world.trace(self.name, "dies")
        for link in self.job.network.of(self.id):
            link.end(self.id, flush=flush)
        if self.stream is not None:
            if flush:
                self.stream.end_by_peer()
            else:
                self.stream.break_now()
        self.job.on_death(self)

    def leave(self) -> None:
        self.leaving = True
        self.feed(AppLeave(reason=Departure.FINISHED))

    def _tick(self) -> None:
        if self.alive:
            self.deliver(lambda: self.feed(Tick()))
            self.world.after(TICK_S, self._tick)

    # --- the machine ------------------------------------------------------------------------------

    def feed(self, event: PeerEvent) -> None:
        if not self.alive:
            return
        if self.world.tracing and not isinstance(event, Tick):
            self.world.trace(self.name, f"<- {event}")
        for action in self.machine.handle(event, self.world.now_s):
            self._act(action)
        self._program()

    def _act(self, action: PeerAction) -> None:
        match action:
            case Say(message=message):
                if self.stream is not None:
                    self.stream.say(message)
            case Reconnect(at_s=at_s):
                if self.stream is not None:
                    stream, self.stream = self.stream, None
                    stream.end_by_peer()
                self.world.at(at_s, lambda: self.deliver(self._connect))
            case StartEngine():
                self.feed(EngineStarted(endpoints=(Endpoint(host="sim", port=1),)))
            case Expect(peer=peer):
                self._command(lambda: self.wanted.add(peer))
            case Dial(peer=peer):
                self._command(lambda: self._dial(peer))
            case Drop(peer=peer):
                self._command(lambda: self._drop(peer))
            case FenceEngine(attempt=attempt, kind=kind):
                self._command(lambda: self.engine.fence(attempt, kind))
            case InstallEngine(view=view, starts=starts, kind=kind):
                self._command(lambda: self.engine.install(view, starts, kind))
            case Ended():
                self.world.after(0.001, self.die)
            case _:
                assert_never(action)

    def _command(self, action: Callable[[], None]) -> None:
        self._to_engine.push(lambda: self.deliver(action))

    def _connect(self) -> None:
        if self.machine.ended is not None or self.machine.left:
            return
        self.stream = self.job.connect(self)
        if self.stream is None:
            self.world.after(0.01, lambda: self.deliver(lambda: self.feed(StreamLost())))
        else:
            self.feed(StreamUp())

    def heard(self, stream: Stream, message: object) -> None:
        def now() -> None:
            if self.stream is stream:
                self.feed(Heard(message=message))  # type: ignore[arg-type]

        self.deliver(now)

    def stream_lost(self, stream: Stream) -> None:
        def now() -> None:
            if self.stream is stream:
                self.stream = None
                self.feed(StreamLost())

        self.deliver(now)

    # --- links ------------------------------------------------------------------------------------

    def expects(self, peer: PeerId) -> bool:
        return self.alive and peer in self.wanted

    def _dial(self, peer: PeerId) -> None:
        self.wanted.add(peer)
        self.job.network.dial(self, lambda: self.job.find(peer), peer)

    def _drop(self, peer: PeerId) -> None:
        self.wanted.discard(peer)
        link = self.links.pop(peer, None)
        if link is not None:
            link.end(self.id, flush=True)
            self.engine.link_down(peer)

    def _notify(self, event: LinkUp | LinkDown) -> None:
        self._events.push(lambda: self.deliver(lambda: self.feed(event)))

    def on_link_up(self, link: Link) -> None:
        peer = link.other(self.id).id
        if peer not in self.wanted:
            link.end(self.id, flush=True)
            return
        self.links[peer] = link
        self._notify(LinkUp(peer=peer))

    def on_link_down(self, peer: PeerId, reason: str) -> None:
        if self.links.pop(peer, None) is not None:
            self.engine.link_down(peer)
        self._notify(LinkDown(peer=peer, reason=reason))

    def _send_frame(self, peer: PeerId, frame: Frame) -> None:
        link = self.links.get(peer)
        if link is not None:
            link.send(self.id, frame)

    def on_frame(self, link: Link, sender: PeerId, payload: Frame | State) -> None:
        if isinstance(payload, Frame):
            self.engine.deliver(sender, payload)
        elif payload.digest is None:
            if self.confirmed and self.revision == payload.revision and self.state is not None:
                link.send(self.id, State(payload.revision, self.state))
        else:
            self._receive_state(payload.revision, payload.digest)

    # --- the program ------------------------------------------------------------------------------

    def _program(self) -> None:
        machine = self.machine
        if not self.alive or machine.ended is not None:
            return
        if machine.left:
            self.world.after(0.002, lambda: self.die(flush=True))
            return
        if not machine.member:
            listed = any(info.id == self.id for info in machine.peers)
            if (
                listed
                and not machine.view.epoch
                and (not machine.donors or machine.donors & machine.linked)
            ):
                self._once_ready()
            return
        if not self._holds():
            self._seek_state()
            return
        for number in CHANNELS:
            if number not in self._busy and not self.leaving:
                self._busy.add(number)
                pause_s = self.world.between(0.02, 0.15)
                self.world.after(pause_s, lambda n=number: self.deliver(lambda: self._submit(n)))  # type: ignore[misc]

    _said_ready = False
    _state_epoch = 0

    def _once_ready(self) -> None:
        if not self._said_ready:
            self._said_ready = True
            pause_s = self.world.between(0.0, 0.2)
            self.world.after(pause_s, lambda: self.deliver(lambda: self.feed(AppReady())))

    def _holds(self) -> bool:
        """Whether it holds the state of its view, and the coordinator knows."""
        machine = self.machine
        if self.id in machine.holders:
            if self.state is None:  # the first, or the last that is left
                self.revision = machine.starts.get(0, 0)
                self.state = f"seed-{machine.view.epoch}"
            self.confirmed = True
        elif self.state is not None and self.id in machine.donors:
            self.confirmed = True
        return self.confirmed

    def _seek_state(self) -> None:
        machine, now_s = self.machine, self.world.now_s
        if self._state_epoch == machine.view.epoch or now_s - self._asked_s < 0.05:
            return
        wanted = machine.starts.get(0, 0)
        for donor in sorted(machine.holders):
            if donor in self.links:
                self._asked_s = now_s
                self.links[donor].send(self.id, State(wanted, None))

    def _receive_state(self, revision: int, digest: str) -> None:
        machine = self.machine
        wanted = self._state_epoch != machine.view.epoch and not self.confirmed
        if machine.member and wanted and revision == machine.starts.get(0, 0):
            self.state, self.revision = digest, revision
            self._state_epoch = machine.view.epoch
            self.feed(AppHolding(epoch=machine.view.epoch))

    def _submit(self, number: int) -> None:
        if self.leaving or not self.machine.member or not self.confirmed:
            self._busy.discard(number)
            return
        self.engine.submit(number, f"{self.state}" if number == 0 else "-")

    def _complete(self, number: int, op: Op) -> None:
        assert op.result is not None
        if number == 0:
            peers = ",".join(c.peer.decode() for c in op.result.contributions)
            text = f"{self.state}|{op.sequence}|{op.result.epoch}|{peers}"
            self.state = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:8]
            self.revision = op.sequence + 1
        self._busy.discard(number)
        self.world.after(0.001, lambda: self.deliver(self._program))
