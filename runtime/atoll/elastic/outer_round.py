"""One round of an outer method between elastic islands, as a program. No I/O.

Two views matter: that of the own island, and that of the outer job, in which all workers of all
islands are. A round begins when all workers of the island have gathered for it in the island's
view, so that none waits for another in there. Then all islands meet: everybody says how its island
lies. When all are there as they say, only the outer view is looked at, until the sums' digests are
gathered: by the rules of views either all who go on have the sums, or nobody has and the round
begins again.

A loss shows in both views, in any order. In the meeting it interrupts whoever sees it in the
island's view, and the meeting's gathering goes on without being heard: what the others hear names
the dead as well, so it either does not fit, or the outer view changes and ends what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from atoll.elastic import flat, outer
from atoll.elastic.durable import Durable
from atoll.elastic.exchange import elements, exchange, parts
from atoll.elastic.identity import Spine, VShard, Worker
from atoll.elastic.layout import Layout, decode
from atoll.elastic.outer import DiLoCo, Place, Said
from atoll.elastic.requests import (
    Gather,
    Meet,
    Outside,
    OutsideChanged,
    Program,
    Request,
    Result,
    Watch,
    dump,
    load,
    named,
)
from atoll.elastic.routes import Route
from atoll.elastic.stage_worker import StageWorker
from atoll.errors import CheckpointError, DeadlineExceeded, MismatchError

if TYPE_CHECKING:
    from torch import Tensor

ATTEMPTS = 12_000
"""Meetings in which not everybody is there yet. `Watch` waits up to 50 ms after each, so islands
may begin ten minutes apart."""


class OuterRound:
    """See the module. One for each worker."""

    def __init__(
        self, settings: DiLoCo, worker: StageWorker, durable: Durable | None = None
    ) -> None:
        self.settings = settings
        self._worker = worker
        self._spine: Spine = worker.spine
        self._durable = durable

    def beginning(self, layout: Layout, rounds: Sequence[int]) -> Program[int]:
        """The round at which all islands begin: the newest of which each has a whole checkpoint.
        rounds: those of this island.

        Raises CheckpointError if there is none, Interrupted when a worker of the island is lost.
        """
        for _ in range(ATTEMPTS):
            yield Meet(needs=layout.workers)
            with suppress(OutsideChanged):
                heard = yield from self._heard(layout, tuple(rounds))
                if outer.places(heard, self.settings.islands) is not None:
                    common = outer.beginnings(heard.values())
                    if common:
                        return max(common)
                    there = {each.island: each.begins or (each.rounds,) for each in heard.values()}
                    raise CheckpointError(
                        "there is no round at which all islands can begin: "
                        + "; ".join(f"{name} {list(own)}" for name, own in sorted(there.items()))
                        + "; bring back checkpoints of one round, or name other URLs to begin anew"
                    )
            yield Watch(needs=layout.workers)
        raise DeadlineExceeded(self._not_met())

    def sums(self, layout: Layout) -> Program[Sums]:
        """What all islands together have moved, for each vshard that is held here.

        Raises Interrupted when a worker of the island is lost.
        """
        for _ in range(ATTEMPTS):
            own = yield Meet(needs=layout.workers)
            try:
                there = yield from self._meeting(layout)
                if there is not None:
                    found = yield from outside(self._together(own, there))
                    if found is not None:
                        return found
            except OutsideChanged:
                # Others may still wait for a gathering of the view before, and look at no island
                # meanwhile: what is said next ends it, also if a loss in the island interrupts us.
                continue
            yield Watch(needs=layout.workers)
        raise DeadlineExceeded(self._not_met())

    def _not_met(self) -> str:
        return (
            f"the islands {', '.join(self.settings.islands)} do not meet for a round: "
            "is each running, with all its workers in one outer job?"
        )

    def _heard(
        self, layout: Layout, begins: tuple[int, ...] | None = None
    ) -> Program[dict[Worker, Said]]:
        """What all workers of all islands say, this one included."""
        said = Said(
            island=self.settings.island,
            worker=self._worker.name,
            step=self._worker.step,
            rounds=self._worker.rounds,
            run=f"{self._spine.layer_sizes} {self._spine.vshards} {self._spine.ties} "
            + self.settings.text(),
            layout=layout,
            begins=begins,
            saved=() if self._durable is None else tuple(self._durable.rounds()),
        )
        told = yield Outside(request=Gather(what="meeting", text=_dump(said)), needs=layout.workers)
        heard = {worker: _load(text) for worker, text in told.items()}
        # In the order of the view: the oldest first, whose run is the right one.
        model = next(iter(heard.values()))
        apart = (model.begins is None) == (begins is None) and model.step != said.step
        if said.run != model.run or apart:
            raise MismatchError(
                f"island {said.island} is at step {said.step} of another run or outer method than "
                f"island {model.island} at step {model.step}: islands of an outer job begin "
                "together, with the same model and settings"
            )
        return heard

    def _meeting(self, layout: Layout) -> Program[tuple[Place, ...] | None]:
        """Who is there; None: not all, as yet."""
        heard = yield from self._heard(layout)
        if any(each.begins is not None for each in heard.values()):
            return None  # they have to hear where we are, and to make their steps
        if len({(each.run, each.step) for each in heard.values()}) > 1:
            return None  # they leave, with the error of `_heard`
        if self._durable is not None:
            self._durable.islands_have(outer.saved_by_islands(heard.values()).values())
        present = {each.island for each in heard.values()}
        # In the first round all islands are waited for; later one of which nobody is left is not.
        first = self._worker.rounds == 0
        return outer.places(heard, [i for i in self.settings.islands if first or i in present])

    def _together(self, own: Worker, there: Sequence[Place]) -> Program[Sums | None]:
        """All who are there do this, and nobody looks at the island until it is over."""
        sums = yield from self._exchanged(own, there)
        text = dump(
            sums={named(shard): flat.digest(total) for shard, total in sums.items()},
            began={named(shard): digest for shard, digest in self._worker.shared_digests().items()},
        )
        told = yield Gather(what="sums agreed", text=text)
        found = {worker: load(text) for worker, text in told.items()}
        if not _all_equal({w: each["began"] for w, each in found.items()}, there, self._spine):
            raise MismatchError(
                "the islands began their round with different parameters: seed torch alike on all "
                "before the layers are made, and keep checkpoints of one run only"
            )
        if not _all_equal({w: each["sums"] for w, each in found.items()}, there, self._spine):
            return None  # something was damaged on its way
        return Sums(sums, islands=len(there))

    def _exchanged(self, own: Worker, there: Sequence[Place]) -> Program[dict[VShard, Tensor]]:
        spine, worker = self._spine, self._worker
        ways = {shard: worker.way(shard) for shard in worker.owned}

        def size(route: Route) -> int:
            return elements(route, spine)

        def label(what: str) -> tuple[str | int, ...]:
            return (what, worker.rounds)

        todo = outer.to_homes(there, spine)
        arrived = yield from exchange(
            own, label("ways"), todo, lambda route: [ways[s] for s in route.shards], size
        )
        brought: dict[tuple[VShard, Worker], Tensor] = {
            (shard, route.source): way
            for route, tensor in arrived
            for shard, way in parts(route, tensor, spine)
        }
        sums: dict[VShard, Tensor] = {}
        for shard in worker.owned:
            if there[outer.home(shard, len(there))].owner(shard) == own:
                # In the order of the islands' names, whoever was first.
                each = [brought.get((shard, p.owner(shard)), ways[shard]) for p in there]
                total = each[0].clone()
                for way in each[1:]:
                    total.add_(way)
                sums[shard] = total

        def known(route: Route) -> list[Tensor]:
            return [sums[shard] for shard in route.shards]

        for what, todo in (
            ("sums", outer.from_homes(there, spine)),
            ("shadow sums", outer.to_backups(there, spine)),
        ):
            for route, tensor in (yield from exchange(own, label(what), todo, known, size)):
                sums.update((shard, s.clone()) for shard, s in parts(route, tensor, spine))
        return sums


class Sums(dict["VShard", "torch.Tensor"]):
    """By vshard, [n]; of `islands` islands."""

    def __init__(self, sums: Mapping[VShard, Tensor], *, islands: int) -> None:
        super().__init__(sums)
        self.islands = islands


def _all_equal(
    digests: Mapping[Worker, Mapping[str, str]], there: Sequence[Place], spine: Spine
) -> bool:
    """Every owner and every backup of every island has the same sum."""
    for shard in spine.shards():
        holding = [w for place in there for w in (place.owner(shard), place.backup(shard))]
        found = {digests[worker].get(named(shard)) for worker in holding if worker is not None}
        if len(found) != 1 or None in found:
            return False
    return True


def outside(program: Program[Result]) -> Program[Result]:
    """The same program, driven over the outer job."""
    answer: Any = None
    fault: OutsideChanged | None = None
    while True:
        try:
            request: Request = program.send(answer) if fault is None else program.throw(fault)
        except StopIteration as end:
            result: Result = end.value
            return result
        answer, fault = None, None
        try:
            answer = yield Outside(request=request)
        except OutsideChanged as change:
            fault = change


def _dump(said: Said) -> str:
    return dump(
        island=said.island,
        worker=said.worker,
        step=said.step,
        rounds=said.rounds,
        run=said.run,
        layout=said.layout.encode().decode(),
        begins=said.begins,
        saved=said.saved,
    )


def _load(text: str) -> Said:
    found = load(text)
    begins = None if found["begins"] is None else tuple(found["begins"])
    layout = decode(found["layout"].encode())
    return Said(**{**found, "layout": layout, "begins": begins, "saved": tuple(found["saved"])})
