"""An elastic island as one member of an outer method: DiLoCo (arXiv 2311.08105) by vshards. Pure.

After every `every` steps the islands average how far each has come from where all began, and go on
from a step of SGD with Nesterov momentum along it. The state of that, the point where all began and
its momentum, is cut into the same vshards as the optimizer's, with the same owners and backups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.elastic.identity import Spine, VShard, Worker
from atoll.elastic.layout import Layout
from atoll.elastic.routes import Route, grouped
from atoll.errors import MisuseError

if TYPE_CHECKING:
    from atoll.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class DiLoCo:
    """join: makes this worker's session of the job that all workers of all islands are in; called
    once, when the first round is due here, with checkpoints when the run begins. island: this
    worker's. islands: all that take part, the same everywhere. every: steps of a round. lr,
    momentum: of the outer step."""

    join: Callable[[], Session]
    island: str
    islands: tuple[str, ...]
    every: int
    lr: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.every < 1 or len(set(self.islands)) != len(self.islands):
            raise MisuseError(
                "an outer round needs a step at least, and islands of different names"
            )
        if self.island not in self.islands:
            raise MisuseError(f"island {self.island} is none of {', '.join(self.islands)}")

    def text(self) -> str:
        """What all workers must have in common."""
        return repr((sorted(self.islands), self.every, self.lr, self.momentum))

    def due(self, step: int, rounds: int) -> bool:
        """Whether a round comes before the next step; rounds: how many were made."""
        return step // self.every > rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one worker says before a round: where it belongs, and how its island lies.

    rounds: how many its island has made. begins: before the island's first step, those at which it
    can begin (0: anew). saved: rounds of whole checkpoints that will stay.
    """

    island: str
    worker: Worker
    step: int
    rounds: int
    run: str
    layout: Layout
    begins: tuple[int, ...] | None = None
    saved: tuple[int, ...] = ()


def saved_by_islands(said: Iterable[Said]) -> dict[str, set[int]]:
    """One worker that knows of a whole checkpoint is enough."""
    found: dict[str, set[int]] = {}
    for each in said:
        found.setdefault(each.island, set()).update(each.saved)
    return found


def beginnings(said: Iterable[Said]) -> set[int]:
    """The rounds at which all can begin, or are."""
    return set.intersection(
        *({each.rounds} if each.begins is None else set(each.begins) for each in said)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Who holds an island's copies of the vshards, by the names that all islands know."""

    layout: Layout
    names: Mapping[Worker, Worker]

    def owner(self, shard: VShard) -> Worker:
        return self.names[self.layout.owner(shard)]

    def backup(self, shard: VShard) -> Worker | None:
        found = self.layout.backup(shard)
        return None if found is None else self.names[found]


def places(said: Mapping[Worker, Said], expected: Sequence[str]) -> tuple[Place, ...] | None:
    """The islands of a round in the order of their names; None: not all are there as they say.

    said: by the name outside. All who have heard the same get the same.
    """
    found = []
    for island in sorted(expected):
        own = {outside: each for outside, each in said.items() if each.island == island}
        layouts = {each.layout.digest(): each.layout for each in own.values()}
        if len(layouts) != 1:
            return None
        (layout,) = layouts.values()
        names = {each.worker: outside for outside, each in own.items()}
        if set(names) != set(layout.workers):
            return None
        found.append(Place(layout=layout, names=names))
    return tuple(found)


def home(shard: VShard, islands: int) -> int:
    """The island whose owner of a vshard adds up what all islands bring.

    By triangular numbers: owners have every second or third vshard, and each has homes everywhere.
    """
    layer, v = shard
    return (layer + v * (v + 1) // 2) % islands


def to_homes(there: Sequence[Place], spine: Spine) -> tuple[Route, ...]:
    """From owner to owner: each island's way, to where it is added."""
    return grouped(
        [
            (place.owner(shard), there[home(shard, len(there))].owner(shard), shard)
            for place in there
            for shard in spine.shards()
        ]
    )


def from_homes(there: Sequence[Place], spine: Spine) -> tuple[Route, ...]:
    """From owner to owner: the sums."""
    return grouped([(r.target, r.source, s) for r in to_homes(there, spine) for s in r.shards])


def to_backups(there: Sequence[Place], spine: Spine) -> tuple[Route, ...]:
    """The sums again, within each island."""
    return grouped(
        [
            (place.owner(shard), backup, shard)
            for place in there
            for shard in spine.shards()
            if (backup := place.backup(shard)) is not None
        ]
    )
