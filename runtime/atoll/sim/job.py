"""A simulated job: coordinators that lead one after the other, and sometimes two at once as far as
they know; islands that come and go; one network."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import CoordinatorOptions, Snapshot, Tick
from atoll.membership.messages import PeerId
from atoll.sim.checks import Checks
from atoll.sim.engine import Engine
from atoll.sim.leader import Leader, Register
from atoll.sim.network import Network, Stream
from atoll.sim.process import Process
from atoll.sim.world import World

TICK_S = 0.05

OPTIONS = CoordinatorOptions(
    job="sim",
    heartbeat_s=0.25,
    heartbeat_timeout_s=1.5,
    reconnect_grace_s=0.6,
    restored_grace_s=3.0,
    suspicion_settle_s=0.1,
    fence_timeout_s=0.8,
    form_settle_s=0.05,
    form_patience_s=0.5,
    stall_s=0.5,
    measure_settle_s=0.25,
    measure_slot_s=0.06,
    measure_long_slot_s=0.06,
    topology_interval_s=1.0,
    shards_timeout_s=3.0,
    leave_patience_s=0.6,
)
"""The real proportions, about four times as fast."""


@dataclass(slots=True, kw_only=True)
class Crew:
    """One incarnation of an island: its processes, by shard, and whether whoever started them kills
    the others when one dies."""

    number: int
    kills: bool
    shards: dict[int, Process] = field(default_factory=dict)
    to_start: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        return not self.to_start and not any(p.alive for p in self.shards.values())


class Job:
    def __init__(self, world: World, min_islands: int, shards: int = 1) -> None:
        self.world = world
        self.shards = shards
        # Whether the shards of an island wait for each other, as those of an FSDP job do.
        self.in_step = world.chance(0.5)
        self.options = replace(OPTIONS, min_islands=min_islands)
        self.network = Network(world, self.reachable)
        self.separated: frozenset[str] = frozenset()
        self._separated_shard = 0
        self._checks: dict[bytes, Checks] = {}  # of each job, by its secret
        self.islands: dict[str, Crew] = {}
        self.wanted: set[str] = set()  # islands that are started again when they die
        self.unreachable: set[str] = set()  # islands that cannot reach the coordinator
        self.processes: dict[PeerId, Process] = {}
        self.leader: Leader | None = None
        self.deposed: list[Leader] = []  # they do not know yet
        self.write_fails: Callable[[], bool] = lambda: False
        self.twice: Callable[[], bool] = lambda: False  # whether a message comes twice
        self.on_view_change: Callable[[], None] = lambda: None  # a fault may strike just now
        self.lost_stores = 0
        self._incarnations: dict[str, itertools.count[int]] = {}
        self._register = Register(self._saved)
        self.start_coordinator()
        world.after(TICK_S, self._tick)

    # --- islands ----------------------------------------------------------------------------------

    def start_island(self, name: str) -> None:
        current = self.islands.get(name)
        if current is not None and not current.over:
            return
        self.wanted.add(name)
        number = next(self._incarnations.setdefault(name, itertools.count(1)))
        crew = Crew(number=number, kills=self.world.chance(0.7), to_start=set(range(self.shards)))
        self.islands[name] = crew
        for shard in range(self.shards):
            delay_s = self.world.between(0.0, 0.3) if self.shards > 1 else 0.0
            self.world.after(delay_s, lambda s=shard: self._start_shard(name, crew, s))  # type: ignore[misc]

    def _start_shard(self, name: str, crew: Crew, shard: int) -> None:
        if shard in crew.to_start:
            crew.to_start.discard(shard)
            process = crew.shards[shard] = Process(self, name, crew.number, shard)
            self.processes[process.id] = process

    def on_death(self, process: Process) -> None:
        del self.processes[process.id]
        name = process.machine.island
        crew = self.islands[name]
        if crew.kills and not process.machine.left:
            self.world.after(self.world.between(0.0, 0.3), lambda: self._kill(name, crew))
        if crew.over:
            self._start_again(name)

    def _kill(self, name: str, crew: Crew) -> None:
        crew.to_start.clear()
        for process in crew.shards.values():
            process.die(flush=self.world.chance(0.3))
        if crew.over:
            self._start_again(name)

    def _start_again(self, name: str) -> None:
        if name in self.wanted:
            self.world.after(self.world.between(0.05, 1.0), lambda: self.start_island(name))

    def mates(self, process: Process) -> list[Process] | None:
        """All shards of its island, or None when they are not all there."""
        crew = self.islands[process.machine.island]
        alive = [p for p in crew.shards.values() if p.alive]
        return alive if len(alive) == self.shards else None

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
        self._separated_shard = self.world.random.randrange(self.shards)
        for pair, link in self.network.links.items():
            if not self.reachable(*pair):
                link.close(min(pair), "reset")

    def reachable(self, one: PeerId, other: PeerId) -> bool:
        """In one ring, the others reach each other everywhere."""
        machines = [self.processes[p].machine for p in (one, other) if p in self.processes]
        concerned = any(m.shard == self._separated_shard for m in machines)
        islands = {machine.island for machine in machines}
        return not self.separated or not concerned or islands != self.separated

    # --- the coordinators -------------------------------------------------------------------------

    @property
    def machine(self) -> CoordinatorMachine | None:
        """Of the one that leads."""
        return None if self.leader is None else self.leader.machine

    def start_coordinator(self) -> None:
        """One takes the lead; who led, if it does not know better, goes on as far as it comes."""
        if self.leader is not None:
            self.deposed.append(self.leader)
        self.leader = Leader(self, self._register)
        self.world.trace("coord", "leads")
        self.leader.drive(Tick())

    @property
    def secret(self) -> bytes:
        """Of the job whose coordinator leads, or would."""
        return self._register.secret

    @property
    def checks(self) -> Checks:
        """Of that job."""
        return self.checks_of(self.secret)

    def checks_of(self, secret: bytes) -> Checks:
        return self._checks.setdefault(secret, Checks(self._engine_of, self.shards))

    def lose_store(self) -> None:
        """With the coordinator; one that starts after this knows of nothing."""
        self.kill_coordinator()
        self._register.lose()
        self.lost_stores += 1

    def kill_coordinator(self) -> None:
        self.world.trace("coord", "dies")
        if self.leader is not None:
            self.leader.end()

    def on_term_over(self, leader: Leader) -> None:
        if leader is self.leader:
            self.leader = None
        elif leader in self.deposed:
            self.deposed.remove(leader)

    def connect(self, process: Process) -> Stream | None:
        """To the leader, or to one that was it: it may still be where peers look first."""
        if process.machine.island in self.unreachable:
            return None
        if self.deposed and self.world.chance(0.3):
            return self.world.random.choice(self.deposed).connect(process)
        return None if self.leader is None else self.leader.connect(process)

    def break_stream(self, process: Process) -> None:
        if process.stream is not None:
            process.stream.break_now()

    def _saved(self, snapshot: Snapshot) -> None:
        self.checks_of(snapshot.secret).on_issue(snapshot.issued)

    def _tick(self) -> None:
        for leader in (self.leader, *self.deposed):
            if leader is not None:
                leader.drive(Tick())
        self.world.after(TICK_S, self._tick)
