"""The simulator once more, as dumb as can be: unit after unit, event after event.

Every island works through its units one at a time. An exchange stands in the queue of each of its
members' links; it begins when it is at the head of all of them and all these links are idle.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from atoll.planning.network import Floats
from atoll.planning.simulate import Exchange, Schedule

Key = tuple[int, int]  # the exchange's number and the period


@dataclass
class Island:
    rank: int
    unit_s: float
    step: int = 0
    unit: int = 0
    queue: deque[Key] = field(default_factory=deque)
    link_busy: bool = False
    received: set[Key] = field(default_factory=set)
    blocked: bool = False


class Twin:
    def __init__(self, schedule: Schedule, step_s: Floats, periods: int) -> None:
        self.schedule = schedule
        self.periods = periods
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbered = 0
        self.islands = [Island(rank, s / schedule.units) for rank, s in enumerate(step_s)]
        self.marks: dict[int, list[float]] = defaultdict(list)

    def run(self) -> Floats:
        for island in self.islands:
            self.reach(island)
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()
        every = [self.marks[island.rank] for island in self.islands]
        return np.array(every).T

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.numbered += 1
        heapq.heappush(self.events, (self.now + seconds, self.numbered, action))

    def reach(self, island: Island) -> None:
        """A unit is about to begin."""
        if island.unit == 0 and island.step % self.schedule.every == 0:
            self.marks[island.rank].append(self.now)
            if len(self.marks[island.rank]) > self.periods:
                return
        if island.step > 0 and island.unit == 0:
            self.post(island, island.step - 1, self.schedule.units)
        if island.unit > 0:
            self.post(island, island.step, island.unit)
        self.go_on(island)

    def go_on(self, island: Island) -> None:
        island.blocked = any(key not in island.received for key in self.waits(island))
        if island.blocked:
            return
        if island.unit == 0:
            self.post(island, island.step, 0)
        self.after(island.unit_s, lambda: self.computed(island))

    def computed(self, island: Island) -> None:
        island.unit += 1
        if island.unit == self.schedule.units:
            island.step, island.unit = island.step + 1, 0
        self.reach(island)

    def waits(self, island: Island) -> list[Key]:
        found = []
        for number, exchange in enumerate(self.schedule.exchanges):
            into = island.step - exchange.needed_in
            if into >= 0 and into % self.schedule.every == 0 and exchange.needed == island.unit:
                found.append((number, into // self.schedule.every))
        return found

    def post(self, island: Island, step: int, ready: int) -> None:
        for number, exchange in enumerate(self.schedule.exchanges):
            if exchange.ready == ready and step % self.schedule.every == exchange.step:
                island.queue.append((number, step // self.schedule.every))
        self.look_at_links()

    def members(self, rank: int, exchange: Exchange, period: int) -> list[Island]:
        group = exchange.cost(period).group
        return [i for i in self.islands if group is None or group[i.rank] == group[rank]]

    def look_at_links(self) -> None:
        """Begins whatever can begin."""
        for island in self.islands:
            if not island.queue or island.link_busy:
                continue
            key = island.queue[0]
            exchange = self.schedule.exchanges[key[0]]
            members = self.members(island.rank, exchange, key[1])
            if all(m.queue and m.queue[0] == key and not m.link_busy for m in members):
                self.begin(key, exchange, members)

    def begin(self, key: Key, exchange: Exchange, members: list[Island]) -> None:
        cost = exchange.cost(key[1])
        shape = (len(self.islands),)
        busy = np.broadcast_to(cost.busy_s, shape)
        latency = np.broadcast_to(cost.latency_s, shape)
        longest = max(float(busy[member.rank]) for member in members)
        for member in members:
            member.queue.popleft()
            member.link_busy = True
            self.after(float(busy[member.rank]), lambda member=member: self.idle(member))
            self.after(
                longest + float(latency[member.rank]),
                lambda member=member: self.arrived(member, key),
            )

    def idle(self, island: Island) -> None:
        island.link_busy = False
        self.look_at_links()

    def arrived(self, island: Island, key: Key) -> None:
        island.received.add(key)
        if island.blocked:
            self.go_on(island)
