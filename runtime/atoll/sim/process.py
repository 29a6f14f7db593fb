"""A simulated training process: the real peer machine, a modelled engine, a small program.

The program fetches the shared state, says so, and then runs op after op on two channels. Ops on
channel 0 change the shared state, those on channel 1 do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from atoll.membership.messages import Departure, Endpoint, LinkFigures, PeerId
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    AppHolding,
    AppLeave,
    AppReady,
    Carry,
    Dial,
    Drop,
    Ended,
    EngineProbed,
    EngineStarted,
    Expect,
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
from atoll.sim.checks import named
from atoll.sim.engine import Engine, Frame, Op
from atoll.sim.network import Link, State, Stream
from atoll.sim.world import Fifo

if TYPE_CHECKING:
    from atoll.sim.job import Job

TICK_S = 0.1
CHANNELS = (0, 1)


class Process:
    """One shard of one incarnation of an island."""

    def __init__(self, job: Job, name: str, number: int, shard: int) -> None:
        self.job, self.world = job, job.world
        self.id: PeerId = named(name, number, shard)
        self.name = self.id.rstrip(b".").decode()
        self.machine = PeerMachine(
            peer=self.id,
            island=name,
            job=job.options.job,
            software_version="sim",
            shard=shard,
            shards=job.shards,
        )
        self.alive = True
        self.secret = b""
        self._checks = job.checks
        self.leaving = False
        self.stream: Stream | None = None
        self.links: dict[PeerId, Link] = {}
        self.wanted: set[PeerId] = set()
        self.carried: set[frozenset[PeerId]] = set()  # pairs that it may bring together
        self.state: str | None = None  # digest of the shared state, and
        self.revision = -1  # how many ops of channel 0 it has absorbed
        self.confirmed = False  # the coordinator knows that it holds the state
        self.engine = Engine(
            self.id,
            send=self._send_frame,
            emit=lambda event: self._events.push(lambda: self.deliver(lambda: self.feed(event))),
            complete=self._complete,
            watcher=job.checks,  # until it knows which job it is in
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
        for link in self.job.network.through(self.id):
            link.lose_relay()
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
            case StartEngine(secret=secret):
                self.secret = secret
                self._checks = self.engine.watcher = self.job.checks_of(secret)
                self.feed(EngineStarted(endpoints=(Endpoint(host="sim", port=1),)))
            case Expect(peer=peer):
                self._command(lambda: self.wanted.add(peer))
            case Dial(peer=peer, detour=detour):
                relay = detour.relay if detour is not None else b""
                self._command(lambda: self._dial(peer, relay))
            case Carry(one=one, other=other, ticket=ticket):
                self._command(lambda: self._carry(frozenset((one, other)), bool(ticket)))
            case Drop(peer=peer):
                self._command(lambda: self._drop(peer))
            case FenceEngine(attempt=attempt, kind=kind):
                self._command(lambda: self.engine.fence(attempt, kind))
            case InstallEngine(view=view, starts=starts, kind=kind, topology=topology):
                self._checks.on_told(self.id, view, topology)
                self._command(lambda: self.engine.install(view, starts, kind))
            case Probe(peer=peer):
                self._probe(peer)
            case Ended(error=error):
                if self.secret == self.job.secret:  # else the job that it was in is no more
                    self._checks.on_ended(self.id, self.machine.view, error)
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

    def carries(self, one: PeerId, other: PeerId) -> bool:
        pair = frozenset((one, other))
        return self.alive and not self.frozen and pair in self.carried and pair <= self.links.keys()

    def _carry(self, pair: frozenset[PeerId], wanted: bool) -> None:
        (self.carried.add if wanted else self.carried.discard)(pair)

    def _dial(self, peer: PeerId, relay: PeerId) -> None:
        self.wanted.add(peer)
        self.job.network.dial(self, self.job.find, peer, relay)

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

    def _probe(self, peer: PeerId) -> None:
        """Takes a while, and comes to nothing when the link is not there at the end."""
        rate, rtt_s = self.world.between(1e6, 1e9), self.world.between(1e-3, 0.2)

        def over() -> None:
            linked = peer in self.links
            figures = LinkFigures(rate_bytes_per_s=rate, rtt_s=rtt_s) if linked else None
            self.feed(EngineProbed(peer=peer, figures=figures))

        self.world.after(self.world.between(0.01, 0.2), lambda: self.deliver(over))

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
        if self.job.in_step and not self._in_step(number):
            self.world.after(0.01, lambda: self.deliver(lambda: self._submit(number)))
            return
        self.engine.submit(number, f"{self.state}" if number == 0 else "-")

    def _in_step(self, number: int) -> bool:
        """Whether all shards of its island have come as far as it has."""
        mates = self.job.mates(self)
        committed = self.engine.channel(number).committed
        return mates is not None and all(
            m.machine.member and m.engine.channel(number).committed >= committed for m in mates
        )

    def _complete(self, number: int, op: Op) -> None:
        assert op.result is not None
        if number == 0:
            peers = ",".join(c.peer.decode() for c in op.result.contributions)
            text = f"{self.state}|{op.sequence}|{op.result.epoch}|{peers}"
            self.state = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:8]
            self.revision = op.sequence + 1
        self._busy.discard(number)
        self.world.after(0.001, lambda: self.deliver(self._program))
