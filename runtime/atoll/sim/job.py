"""A simulated job: a coordinator that may be restarted, islands that come and go, one network."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import (
    Close,
    CoordinatorAction,
    CoordinatorEvent,
    CoordinatorOptions,
    Persist,
    Received,
    Send,
    StreamLost,
    Tell,
    Tick,
)
from atoll.membership.messages import Fence, Install, PeerId
from atoll.sim.checks import Checks
from atoll.sim.engine import Engine
from atoll.sim.network import Network, Stream
from atoll.sim.process import Process
from atoll.sim.world import World
from atoll.store.encode import from_json, to_json

TICK_S = 0.05

OPTIONS = CoordinatorOptions(
    job="sim",
    heartbeat_s=0.25,
    heartbeat_timeout_s=1.5,
    reconnect_grace_s=0.6,
    suspicion_settle_s=0.1,
    fence_timeout_s=0.8,
    form_settle_s=0.05,
    form_patience_s=0.5,
    stall_s=0.5,
)
"""The real proportions, about four times as fast."""


class Job:
    def __init__(self, world: World, min_islands: int) -> None:
        self.world = world
        self.options = replace(OPTIONS, min_islands=min_islands)
        self.network = Network(world, self.reachable)
        self.separated: frozenset[str] = frozenset()
        self.checks = Checks(self._engine_of)
        self.islands: dict[str, Process] = {}
        self.wanted: set[str] = set()  # islands that are started again when they die
        self.unreachable: set[str] = set()  # islands that cannot reach the coordinator
        self.processes: dict[PeerId, Process] = {}
        self.machine: CoordinatorMachine | None = None
        self.on_view_change: Callable[[], None] = lambda: None  # a fault may strike just now
        self._streams: dict[int, tuple[Stream, Process]] = {}
        self._numbers = itertools.count(1)
        self._incarnations: dict[str, itertools.count[int]] = {}
        self._saved: str | None = None
        self.start_coordinator()
        world.after(TICK_S, self._tick)

    # --- islands ----------------------------------------------------------------------------------

    def start_island(self, name: str) -> None:
        current = self.islands.get(name)
        if current is not None and current.alive:
            return
        self.wanted.add(name)
        number = next(self._incarnations.setdefault(name, itertools.count(1)))
        process = Process(self, name, number)
        self.islands[name] = process
        self.processes[process.id] = process

    def on_death(self, process: Process) -> None:
        del self.processes[process.id]
        name = process.machine.island
        if name in self.wanted:
            self.world.after(self.world.between(0.05, 1.0), lambda: self.start_island(name))

    def alive(self) -> list[Process]:
        return list(self.processes.values())

    def find(self, peer: PeerId) -> Process | None:
        return self.processes.get(peer)

    def _engine_of(self, peer: PeerId) -> Engine | None:
        process = self.processes.get(peer)
        return None if process is None else process.engine

    def separate(self, one: str, other: str) -> None:
        """Two islands never link again, whatever incarnations they have."""
        self.separated = frozenset((one, other))
        for pair, link in self.network.links.items():
            names = {self.processes[peer].machine.island for peer in pair if peer in self.processes}
            if names == self.separated:
                link.close(min(pair), "reset")

    def reachable(self, one: PeerId, other: PeerId) -> bool:
        islands = {self.processes[p].machine.island for p in (one, other) if p in self.processes}
        return not self.separated or islands != self.separated

    # --- the coordinator --------------------------------------------------------------------------

    def start_coordinator(self) -> None:
        snapshot = None if self._saved is None else from_json(self._saved)
        self.machine = CoordinatorMachine(self.options, secret=bytes(32), snapshot=snapshot)
        self.world.trace("coord", "starts")
        self.drive(Tick())

    def kill_coordinator(self) -> None:
        self.world.trace("coord", "dies")
        self.machine = None
        for stream, _ in list(self._streams.values()):
            stream.break_now()

    def connect(self, process: Process) -> Stream | None:
        if self.machine is None or process.machine.island in self.unreachable:
            return None
        number, machine = next(self._numbers), self.machine
        stream = Stream(
            self.world,
            number,
            to_coordinator=lambda message: self._drive_if(
                machine, Received(stream=number, message=message)
            ),
            to_peer=lambda message: process.heard(stream, message),
            lost_at_coordinator=lambda: self._lose(machine, number),
            lost_at_peer=lambda: process.stream_lost(stream),
        )
        self._streams[number] = (stream, process)
        return stream

    def break_stream(self, process: Process) -> None:
        if process.stream is not None:
            process.stream.break_now()

    def _lose(self, machine: CoordinatorMachine, number: int) -> None:
        self._streams.pop(number, None)
        self._drive_if(machine, StreamLost(stream=number))

    def _drive_if(self, machine: CoordinatorMachine, event: CoordinatorEvent) -> None:
        if self.machine is machine:
            self.drive(event)

    def drive(self, event: CoordinatorEvent) -> None:
        machine = self.machine
        if machine is None:
            return
        if self.world.tracing and not isinstance(event, Tick):
            self.world.trace("coord", f"<- {event}")
        actions = machine.handle(event, self.world.now_s)
        for action in actions:
            if self.machine is machine:  # a fault may strike between two actions
                self._act(action)

    def _act(self, action: CoordinatorAction) -> None:
        match action:
            case Persist(snapshot=snapshot):
                self._saved = to_json(snapshot)
                self.checks.on_issue(snapshot.issued)
            case Send(stream=number, message=message):
                if isinstance(message, Fence | Install):
                    self.on_view_change()
                if number in self._streams:
                    self._streams[number][0].tell(message)
            case Close(stream=number):
                if number in self._streams:
                    self._streams[number][0].end_by_coordinator()
            case Tell(event=event):
                self.world.trace("coord", f"** {event.message}")

    def _tick(self) -> None:
        self.drive(Tick())
        self.world.after(TICK_S, self._tick)
