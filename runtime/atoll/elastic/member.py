"""One member of an elastic island: the protocol of a step and of what interrupts it. No I/O.

    COMPUTE -> REDUCE -> agree on the clip factor -> PREPARE -> confirm (COMMIT) -> APPLY, fill

COMMIT is the commit of a gathering: by the rules of views, all who go on see it or none does. An
interruption at any moment leads to one place: survivors tell each other what they hold, compute
the same answer from it (`recovery`), and go on from there, forward. Programs (`requests.Program`)
are driven by links in a job and by a seeded simulation in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from atoll.elastic import routes
from atoll.elastic.compatible import compatible
from atoll.elastic.compute import compute
from atoll.elastic.decision import Decision
from atoll.elastic.durable import Durable
from atoll.elastic.exchange import elements, exchange, parts, state_elements, states, unpacked
from atoll.elastic.gate import faults
from atoll.elastic.identity import VShard, Worker
from atoll.elastic.landing import Landing
from atoll.elastic.layout import Layout, decode
from atoll.elastic.outer_round import OuterRound
from atoll.elastic.placement import Move, holders, moves
from atoll.elastic.planner import Costs
from atoll.elastic.recovery import Agreed, Recovery, Report, fresh, recovery
from atoll.elastic.requests import (
    Gather,
    Interrupted,
    Program,
    Result,
    dump,
    dump_evidence,
    dump_report,
    load,
    load_evidence,
    load_report,
)
from atoll.elastic.resume import resumed, spread
from atoll.elastic.routes import Others, Route
from atoll.elastic.schedule import checked
from atoll.elastic.stage_worker import Shard, StageWorker
from atoll.elastic.task import Task
from atoll.elastic.transition import even_costs, first_layout, improved
from atoll.errors import GateClosed, MismatchError

if TYPE_CHECKING:
    from torch import Tensor

ATTEMPTS = 3
"""How often a gate that stays closed is tried again."""


class Member:
    """See the module. All members of a job are made with the same arguments but `name`."""

    def __init__(
        self,
        name: Worker,
        task: Task,
        *,
        pipeline: int,
        arithmetic: str,
        chunks: int = 1,
        schedule: str = "1f1b",
        costs: Costs | None = None,
        durable: Durable | None = None,
        leaving: Callable[[], bool] = lambda: False,
        kind: str = "",
    ) -> None:
        """pipeline: groups of workers. chunks: stages of each (`schedule`). durable: the run's
        checkpoints, which every worker writes and reads by itself. leaving: whether this worker was
        told to leave. arithmetic: has to be everybody's. kind: of this worker's arithmetic, which
        may differ."""
        self.name = name
        self.task = task
        self.worker = StageWorker(name, task)
        self.layout: Layout | None = None
        self.recoveries: list[Recovery] = []
        self._spine = self.worker.spine
        self._pipeline, self._chunks = pipeline, chunks
        self._arithmetic = arithmetic
        self._schedule = checked(schedule)
        self._costs = costs or even_costs(self._spine)
        self._durable = durable
        self._kind = kind
        self.kinds: frozenset[str] = frozenset()
        """Of all who may have a place in the layout."""
        self._decision = Decision(self.worker, durable=durable, leaving=leaving)
        self._leavers: frozenset[Worker] = frozenset()
        """Who was told to leave when the last step was committed: known to all alike."""
        self._outer = None
        if task.outer is not None:
            self._outer = OuterRound(task.outer, self.worker, durable)
        self._todo = fresh(self._spine, pipeline * chunks)
        self._places: tuple[Worker, ...] = ()
        """Members that may have a place in the layout."""
        self._changed = True
        """The view has changed, or was never looked at."""
        self._closed = 0
        """How often the gate has stayed closed in this view, since the layout changed last."""
        self._settled_from = 0
        """From this step on the layout may be improved between steps."""
        self._owed: float | None = None
        """The loss of a step that is applied here, and that the caller was not told yet."""

    @property
    def step(self) -> int:
        """How many steps are applied here."""
        return self.worker.step

    @property
    def released(self) -> bool:
        """It was told to leave, and nobody needs it any more: the layout is without it."""
        return self.name in self._leavers and self.name not in self._known().workers

    @property
    def over(self) -> bool:
        """All end here, after the same step: all were told to leave, and with an outer method a
        round is done, or is what `finish` does first."""
        outer = self._outer
        is_round = outer is None or self.worker.step % outer.settings.every == 0
        return is_round and self._leavers >= set(self._known().workers)

    def enter(self) -> Program[None]:
        """First of all: takes part in what the others do. `step` is theirs afterwards."""
        yield from self._through(self._current)

    def train_step(self) -> Program[float]:
        """One step, whoever comes or goes in it; returns its loss.

        Raises StateUnavailable, GateClosed or MismatchError when the run cannot go on.
        """
        return (yield from self._through(self._step))

    def finish(self) -> Program[None]:
        """Last of all: returns when nobody needs this member's state any more."""
        yield from self._through(self._finish)

    def _through(self, part: Callable[[], Program[Result]]) -> Program[Result]:
        """Takes a part up again until it comes to its end, whatever interrupts it."""
        while True:
            try:
                return (yield from part())
            except Interrupted:
                self._changed = True
                self._closed = 0
            except GateClosed:
                self._closed += 1
                if self._closed == ATTEMPTS:
                    raise
                self._changed = True

    def _current(self) -> Program[None]:
        if self._changed:
            yield from self._take_up()
        outer = self._outer
        while outer is not None and outer.settings.due(self.worker.step, self.worker.rounds):
            yield from self._round(outer)

    def _finish(self) -> Program[None]:
        yield from self._current()
        yield Gather(what="finish", text=dump())

    def _step(self) -> Program[float]:
        while True:
            yield from self._current()
            if self._owed is not None:
                return self._settle()
            yield from self._one_step()

    def _one_step(self) -> Program[None]:
        landing = self._landing()
        agreed = yield from landing.beside(self._to_commit(landing.targets))
        landed = yield from landing.rest()
        self._apply(agreed, landed)
        if landing.layout is not None:
            yield from self._change(landing.layout, landed)
            self._closed = 0
            self._todo = fresh(self._spine, len(landing.layout.stages))
        yield from self._fill(routes.to_stage(self._known(), self._spine, step=self.worker.step))

    def _to_commit(self, also: Others) -> Program[Agreed]:
        layout = self._known()
        if self.name in layout.workers:
            yield from compute(self.worker, layout, self._todo, self._schedule)
        return (yield from self._decision.made(layout, also))

    def _round(self, outer: OuterRound) -> Program[None]:
        """One round with the other islands, between two steps (`outer_round`)."""
        layout = self._known()
        # From here on all of this island are outside, and none waits for another in here.
        yield Gather(what="round", text=dump())
        if self.name in layout.workers:
            sums = yield from outer.sums(layout)
            self.worker.apply_round(sums, sums.islands)
        else:
            self.worker.rounds += 1
        if self._durable is not None:
            self._durable.step_over(self.worker, layout)
        yield from self._fill(routes.to_stage(layout, self._spine, step=self.worker.step))

    def _settle(self) -> float:
        loss, self._owed = self._owed, None
        assert loss is not None
        return loss

    def _known(self) -> Layout:
        assert self.layout is not None
        return self.layout

    # ---- one step --------------------------------------------------------------------------------

    def _apply(self, agreed: Agreed, landed: Mapping[VShard, Shard]) -> None:
        self.worker.commit(agreed)
        self.worker.apply(landed)
        self._owed = agreed.loss
        self._leavers = self._decision.leavers
        self._todo = fresh(self._spine, len(self._known().stages))

    def _fill(self, todo: Sequence[Route]) -> Program[None]:
        """Everybody gets the parameters that it computes with."""
        step = self.worker.step
        for shard in self.worker.behind():
            if shard in self.worker.owned:
                self.worker.write_parameters(shard, self.worker.owned[shard].p, step)
        arrived = yield from self._exchange(
            "parameters",
            todo,
            lambda route: [self.worker.owned[shard].p for shard in route.shards],
            partial(elements, spine=self._spine),
        )
        for route, tensor in arrived:
            for shard, p in parts(route, tensor, self._spine):
                self.worker.write_parameters(shard, p, step)

    # ---- tensors between members -----------------------------------------------------------------

    def _exchange(
        self,
        what: str,
        todo: Sequence[Route],
        content: Callable[[Route], list[Tensor]],
        size: Callable[[Route], int],
    ) -> Program[list[tuple[Route, Tensor]]]:
        label = (what, self._known().epoch, self.worker.step)
        return (yield from exchange(self.name, label, todo, content, size))

    # ---- changes of layout -----------------------------------------------------------------------

    def _take_up(self) -> Program[None]:
        """After a change of view: what everybody holds, what follows from it, and on."""
        own = self.worker.report()
        told = yield Gather(
            what="report",
            text=dump(
                report=dump_report(own),
                layout=None if self.layout is None else self.layout.encode().decode(),
                spine=self._spine.digest(),
                arithmetic=self._arithmetic,
                pipeline=[self._pipeline, self._chunks],
                outer=None if self.task.outer is None else self.task.outer.text(),
                rounds=self.worker.rounds,
                kind=self._kind,
            ),
        )
        # In the order of the view: the oldest first, whose way of computing is the run's.
        said = {worker: load(text) for worker, text in told.items()}
        known = [decode(e["layout"].encode()) for e in said.values() if e["layout"] is not None]
        layout = max(known, key=lambda each: each.epoch) if known else None
        self._places = compatible(self.name, said, layout)
        self.kinds = frozenset(said[worker]["kind"] for worker in self._places)
        if layout is None:
            yield from self._begin(self._places)
            return
        reports = [load_report(said[w]["report"]) for w in layout.workers if w in said]
        self.worker.rounds = max(said[report.worker]["rounds"] for report in reports)
        self.layout = layout
        answer = recovery(layout, reports, self._spine)
        self.recoveries.append(answer)
        self._catch_up(answer)
        brought = yield from self._critical(answer.moves)
        yield from self._change(answer.layout, brought)
        self._todo = answer.redo
        self._settled_from = answer.step + 1
        yield from self._fill_after(answer.layout, reports)
        self._changed = False

    def _begin(self, members: Sequence[Worker]) -> Program[None]:
        """The first layout of a run. The gate compares what everybody begins with."""
        layout = first_layout(
            self._spine, members, pipeline=self._pipeline, chunks=self._chunks, costs=self._costs
        )
        if self.name not in members:
            raise MismatchError("this worker has no place in the first layout")
        self.worker.start(layout)
        if self._durable is not None:
            yield from resumed(self._durable, self.worker, members, layout, self._outer)
        if len(self.kinds) > 1:
            yield from spread(self.worker, layout)
        yield from self._pass_gate(layout, {})
        self.layout = layout
        self._todo = fresh(self._spine, len(layout.stages))
        yield from self._fill(routes.to_stage(layout, self._spine, step=self.worker.step))
        self._changed = False

    def _catch_up(self, answer: Recovery) -> None:
        """Applies what was decided; a worker without a place just goes on with the others."""
        if self.worker.step >= answer.step:
            return
        agreed = answer.agreed
        if agreed is None and self.worker.step == answer.step - 1:
            agreed = self.worker.agreed  # the others have applied it
        if self.worker.layers and agreed is not None:
            self.worker.commit(agreed)
            self.worker.apply()
        else:
            self.worker.join(answer.step)
        if agreed is not None:
            self._owed = agreed.loss

    def _fill_after(self, layout: Layout, reports: Sequence[Report]) -> Program[None]:
        """Who has which parameters follows from the reports: new layers are filled as well."""
        versions = routes.versions_in(layout, reports, self._spine)
        step = self.worker.step
        yield from self._fill(routes.to_stage(layout, self._spine, step=step, versions=versions))

    def _landing(self) -> Landing:
        """The quickest layout for who is there, in which every vshard has a backup, stands after
        this step; what moves for it does so meanwhile."""
        layout = self._known()
        if self.worker.step < self._settled_from:
            return Landing(self.worker)
        leaving = self._leavers if self._leavers < {*self._places} else frozenset[Worker]()
        joined = [w for w in self._places if w not in layout.workers and w not in leaving]
        left = leaving & {*layout.workers}
        after = improved(layout, self._spine, self._costs, joined=joined, left=left)
        if replace(after, epoch=layout.epoch) == layout:
            return Landing(self.worker)
        there = holders(layout, set(layout.workers), self._spine)
        return Landing(self.worker, after, moves(there, after, self._spine))

    def _critical(self, made: Sequence[Move]) -> Program[dict[VShard, Shard]]:
        """States that somebody waits for, after a loss; returns those that were brought here."""
        size, content = partial(state_elements, self.worker), partial(states, self.worker)
        arrived = yield from self._exchange("critical", routes.of_moves(made), content, size)
        return unpacked(self.worker, arrived)

    def _change(self, layout: Layout, brought: Mapping[VShard, Shard]) -> Program[None]:
        yield from self._pass_gate(layout, brought)
        if self.name in layout.workers:
            self.worker.adopt(layout, brought)
        self.layout = layout

    def _pass_gate(self, layout: Layout, brought: Mapping[VShard, Shard]) -> Program[None]:
        """Raises GateClosed on all members alike, and nothing has changed."""
        own = self.worker.evidence(layout, brought, self._arithmetic)
        told = yield Gather(what="evidence", text=dump(**dump_evidence(own)))
        evidence = [load_evidence(load(text)) for w, text in told.items() if w in self._places]
        found = faults(
            evidence, layout, self._spine, step=self.worker.step, slots=self.worker.slots
        )
        if found:
            raise GateClosed(found)
