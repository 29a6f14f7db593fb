"""The states of parts of a small job that were met, and what follows of each for the whole."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, NamedTuple

from atoll.membership.messages import ChangeKind, PeerId
from atoll.sim.parts import Chair, Committed, Node, canonical

State = tuple[int, ...]

LOST, CLOSED, UP, MARKS = 0, 1, 2, 3
"""In a queue. LOST: the other end is gone, and what is before it may still arrive, or not. CLOSED:
the other end has ended it, after all that is before it. UP: from here on it is a link."""
ABSENT, ALIVE, DEAD = 0, 1, 2
CHAIR = -1
UNORDERED = {
    "crash",
    "leave",
    "cut",
    "coordinator crashes",
    "coordinator restarts",
    "wait",
    "hurry",
}
"""Moves that are faults, or time: they wait for no turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What may happen, and how often. `joiners`: of the `peers`, linked with the others and ready
    at some time. `cuts`: of links that may come back. `restarts`: of the coordinator, from its
    store. `hurries`: how often its patience may run out while news is under way."""

    name: str
    peers: int = 3
    joiners: int = 0
    crashes: int = 0
    leaves: int = 0
    cuts: int = 0
    restarts: int = 0
    hurries: int = 0
    prompt: bool = False
    """Notices of an engine reach its machine at once: fewer orders, for larger cases."""
    detours: int | None = None
    """How often something may happen that is not the first in the order of `moves`: a bound for
    larger cases. Faults and time are none of it, and come at any moment. None: no bound."""

    @property
    def bounds(self) -> str:
        """What may happen, in words."""
        counts = {
            "joiners": self.joiners,
            "crashes": self.crashes,
            "leaves": self.leaves,
            "cuts": self.cuts,
            "restarts": self.restarts,
            "hurries": self.hurries,
        }
        said = [f"{self.peers} peers", "1 op"]
        said += [f"{what}: {number}" for what, number in counts.items() if number]
        said += ["prompt"] if self.prompt else []
        said += [] if self.detours is None else [f"detours: {self.detours}"]
        return ", ".join(said)


class Move(NamedTuple):
    """`who`: a process's number, or CHAIR. `other`: whose queue."""

    what: str
    who: int
    other: int = CHAIR


@dataclass(frozen=True, slots=True)
class Facts:
    """Of a process: what the invariants and the next moves depend on."""

    epoch: int
    deaf: int  # frames of views up to this one make no difference to it any more
    ids: tuple[PeerId, ...]
    done: int
    settled: int
    committed: tuple[Committed, ...]
    installed: tuple[tuple[int, tuple[PeerId, ...]], ...]
    inbox: bool
    submits: bool
    reconnects: bool
    redials: bool
    may_be_ready: bool
    leaving: bool
    links: frozenset[PeerId]
    wanted: frozenset[PeerId]


def _facts(node: Node) -> Facts:
    return Facts(
        epoch=node.engine.view.epoch,
        deaf=node.engine.view.epoch - (node.engine.fenced is not ChangeKind.ABORT),
        ids=node.engine.view.ids,
        done=node.engine.channel(0).done,
        settled=node.settled,
        committed=node.committed,
        installed=node.installed,
        inbox=bool(node.inbox),
        submits=node.wants_to_submit and not node.leaving,
        reconnects=node.reconnects,
        redials=node.machine.redials,
        may_be_ready=node.may_be_ready,
        leaving=node.leaving,
        links=frozenset(node.links),
        wanted=frozenset(node.wanted),
    )


@dataclass(frozen=True, slots=True)
class ChairFacts:
    """Of the coordinator."""

    views: dict[int, tuple[PeerId, ...]]  # by epoch, all that it has issued
    lineage: dict[int, int]  # the view in which the counts of each view began
    ids: tuple[PeerId, ...]  # of the newest
    idle: bool


def _chair_facts(chair: Chair) -> ChairFacts:
    machine = chair.machine
    return ChairFacts(
        views=dict(chair.views),
        lineage=dict(chair.lineage),
        ids=machine.view.ids,
        idle=machine.idle,
    )


class Parts:
    """The states of parts that were met, and what was computed of them."""

    def __init__(self) -> None:
        self.facts: list[Any] = []
        self._blobs: list[bytes] = []
        self._numbers: dict[object, int] = {}
        self._known: dict[tuple[int, str, int], tuple[int, tuple[Any, ...]]] = {}

    def __len__(self) -> int:
        return len(self._blobs)

    def put(self, part: Chair | Node) -> int:
        key = canonical(part)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._blobs)
            self._blobs.append(pickle.dumps(part, pickle.HIGHEST_PROTOCOL))
            self.facts.append(_facts(part) if isinstance(part, Node) else _chair_facts(part))
        return number

    def step(self, number: int, event: str, item: int, payload: Any) -> tuple[int, tuple[Any, ...]]:
        """What becomes of a part, and what it says. `item` stands for the payload."""
        key = (number, event, item)
        known = self._known.get(key)
        if known is None:
            part = pickle.loads(self._blobs[number])
            out = tuple(part.take(event, payload))
            known = self._known[key] = (self.put(part), out)
        return known
