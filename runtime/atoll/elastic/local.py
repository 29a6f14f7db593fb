"""An elastic island whose workers all live in this process: the protocol's numbers, without links.

What a job of processes does over its links is done here by calls, in the same order and with the
same choices, so that every layout, loss and order can be compared with the oracle, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from atoll.elastic import flat
from atoll.elastic.gate import faults
from atoll.elastic.identity import VShard, Worker
from atoll.elastic.layout import Layout, problems
from atoll.elastic.passes import Passes
from atoll.elastic.placement import Move, holders, moves
from atoll.elastic.recovery import Agreed, Redo, fresh, recovery
from atoll.elastic.schedule import Pass, Stretch, checked, next_pass, order
from atoll.elastic.stage_worker import Shard, StageWorker
from atoll.elastic.task import Task
from atoll.errors import GateClosed, MisuseError

Moment = Literal["forward", "backward", "reduce", "prepare", "commit", "apply", "gather", "move"]
"""What was just done, once, by one worker."""

Killer = Callable[[Moment], frozenset[Worker]]
"""Asked after each thing done: which workers die now."""


class Died(Exception):
    """Thrown from where the loss happens to where the step is taken up again."""

    def __init__(self, workers: frozenset[Worker]) -> None:
        super().__init__(", ".join(sorted(workers)))
        self.workers = workers


class LocalIsland:
    """Trains a task step by step, in any layout."""

    def __init__(
        self,
        task: Task,
        layout: Layout,
        *,
        schedule: str = "1f1b",
        killer: Killer | None = None,
    ) -> None:
        self.task = task
        self.spine = task.spine()
        self._schedule = checked(schedule)
        self._killer = killer
        self._check(layout)
        self.layout = layout
        self.workers = {name: StageWorker(name, task) for name in layout.workers}
        for worker in self.workers.values():
            worker.start(layout)
        self._todo = fresh(self.spine, len(layout.stages))
        self._loss: float | None = None
        self.moved: list[Move] = []
        """Vshards that were sent from worker to worker so far."""
        self.redone: list[tuple[Redo, ...]] = []
        """For each loss, what the stages had still to compute."""

    @property
    def step(self) -> int:
        """How many steps all have applied."""
        return min(worker.step for worker in self.workers.values())

    def train_step(self) -> float:
        """One step, whoever dies in it; returns its loss.

        Raises StateUnavailable if too many do.
        """
        self._loss = None
        target = self.step + 1
        while self.step < target or self._behind():
            try:
                self._advance(target)
            except Died as death:
                self._recover(death.workers)
        assert self._loss is not None
        return self._loss

    def relayout(self, layout: Layout) -> None:
        """Between two steps: what moves is moved, and everybody goes on in the new layout.

        Workers that are new start empty, those that are not in it are gone afterwards.
        """
        self._check(layout)
        step = self.step
        there = holders(self.layout, set(self.workers), self.spine)
        for name in set(layout.workers) - set(self.workers):
            self.workers[name] = StageWorker(name, self.task)
            self.workers[name].join(step)
        self._adopt(layout, moves(there, layout, self.spine))
        self._todo = fresh(self.spine, len(layout.stages))
        self._gather()

    def shard(self, shard: VShard) -> Shard:
        """The owner's state of a vshard."""
        return self.workers[self.layout.owner(shard)].owned[shard]

    # ---- one step --------------------------------------------------------------------------------

    def _advance(self, target: int) -> None:
        """From wherever the step stands to its end."""
        self._gather()  # what a change of layout has left to be filled
        if self.step < target:
            if not any(worker.committed for worker in self.workers.values()):
                self._compute()
                self._reduce()
                self._prepare()
            self._commit_and_apply(target)
        self._gather()

    def _happened(self, moment: Moment) -> None:
        dead = self._killer(moment) if self._killer else frozenset()
        dead &= self.workers.keys()
        if dead:
            raise Died(dead)

    def _compute(self) -> None:
        left = [
            {"forward": set(redo.forward), "backward": set(redo.backward)} for redo in self._todo
        ]
        while any(passes for stage in left for passes in stage.values()):
            ready = [
                (name, made)
                for name in self.layout.workers
                if (made := self._next(name, left)) is not None
            ]
            if not ready:
                raise AssertionError(f"no worker can go on, with {left} left")
            for name, (kind, place, micro_batch) in ready:
                index = self.layout.stages_of(name)[place]
                self._make(index, name, kind, micro_batch)
                left[index][kind].discard(micro_batch)
                self._happened(kind)

    def _next(self, name: Worker, left: Sequence[Mapping[str, set[int]]]) -> Pass | None:
        layout, own = self.layout, set(self.layout.micro_batches_of(name))
        indices = layout.stages_of(name)
        stretches = []
        for index in indices:
            passes = self.workers[name].passes(layout.stages[index])
            stretches.append(
                Stretch(
                    forwards=left[index]["forward"] & own,
                    backwards=left[index]["backward"] & own,
                    inputs=own if passes.is_first else self._kept(index - 1, "outputs"),
                    gradients=own if passes.is_last else self._kept(index + 1, "gradients"),
                    tapes=passes.tapes,
                )
            )
        shares = [stage.micro_batches for stage in layout.stages[: len(layout.groups)]]
        return next_pass(self._schedule, stretches, order(shares, indices[0], layout.chunks))

    def _in_stage(self, index: int) -> list[Passes]:
        stage = self.layout.stages[index]
        return [self.workers[name].passes(stage) for name in stage.workers]

    def _kept(self, index: int, what: Literal["outputs", "gradients"]) -> set[int]:
        return {mb for passes in self._in_stage(index) for mb in getattr(passes, what)}

    def _make(self, index: int, name: Worker, kind: str, micro_batch: int) -> None:
        passes = self.workers[name].passes(self.layout.stages[index])
        if kind == "forward":
            below = self._holder(index - 1, "outputs", micro_batch)
            passes.forward(micro_batch, below.outputs[micro_batch] if below else None)
        else:
            above = self._holder(index + 1, "gradients", micro_batch)
            passes.backward(
                micro_batch,
                above.gradients[micro_batch] if above else None,
                leaf=micro_batch in self._todo[index].leaf,
            )

    def _holder(
        self, index: int, what: Literal["outputs", "gradients"], micro_batch: int
    ) -> Passes | None:
        """Whoever keeps it of the stage; None where there is no such stage."""
        if not 0 <= index < len(self.layout.stages):
            return None
        return next(each for each in self._in_stage(index) if micro_batch in getattr(each, what))

    def _reduce(self) -> None:
        for worker in self.workers.values():
            worker.forget_reduction()
        for shard in self.spine.shards():
            owner = self.workers[self.layout.owner(shard)]
            for layer in self.spine.users(shard):
                for name in self._stage_of(layer):
                    owner.take_nodes(shard, layer, self.workers[name].nodes(shard, layer))
            self._happened("reduce")
        norm = flat.gradient_norm(x for worker in self.workers.values() for x in worker.squares())
        losses = {mb: x for w in self.workers.values() for mb, x in w.losses.items()}
        agreed = Agreed(
            factor=flat.clip_factor(norm, self.task.max_norm),
            loss=flat.total_loss([losses[mb] for mb in range(self.spine.micro_batches)]),
        )
        for worker in self.workers.values():
            worker.agree(agreed)

    def _prepare(self) -> None:
        for shard in self.spine.shards():
            gradient = self.workers[self.layout.owner(shard)].prepare(shard)
            backup = self.layout.backup(shard)
            if backup is not None:
                self.workers[backup].take_prepared(shard, gradient)
            self._happened("prepare")

    def _commit_and_apply(self, target: int) -> None:
        agreed = next(w.agreed for w in self.workers.values() if w.agreed is not None)
        for worker in self.workers.values():
            if worker.step < target:
                worker.commit(agreed)
                self._loss = agreed.loss
                self._happened("commit")
        for worker in self.workers.values():
            if worker.step < target:
                worker.apply()
                self._happened("apply")
        self._todo = fresh(self.spine, len(self.layout.stages))

    def _gather(self) -> None:
        for worker in self.workers.values():
            for shard in worker.behind():
                state = self.shard(shard)
                worker.write_parameters(shard, state.p, state.version)
                self._happened("gather")

    def _behind(self) -> bool:
        return any(worker.behind() for worker in self.workers.values())

    def _stage_of(self, layer: int) -> tuple[Worker, ...]:
        return self.layout.stages[self.layout.stage_of_layer(layer)].workers

    # ---- changes of layout -----------------------------------------------------------------------

    def _recover(self, dead: frozenset[Worker]) -> None:
        """Goes on with the survivors; another loss on the way starts this again, with fewer."""
        while dead:
            for name in dead:
                del self.workers[name]
            dead = frozenset()
            reports = [worker.report() for worker in self.workers.values()]
            answer = recovery(self.layout, reports, self.spine)
            for worker in self.workers.values():
                if worker.step < answer.step:
                    assert answer.agreed is not None
                    self._loss = answer.agreed.loss
                    worker.commit(answer.agreed)
                    worker.apply()
            try:
                self._adopt(answer.layout, answer.moves)
            except Died as death:
                dead = death.workers
                continue
            self._todo = answer.redo
            self.redone.append(answer.redo)

    def _adopt(self, layout: Layout, made: tuple[Move, ...]) -> None:
        brought: dict[Worker, dict[VShard, Shard]] = {name: {} for name in layout.workers}
        for move in made:
            source = self.workers[move.source]
            state = source.owned.get(move.shard) or source.shadows[move.shard]
            brought[move.target][move.shard] = state.copied()
            self._happened("move")
        self._pass_gate(layout, brought)
        self.moved += made
        self.layout = layout
        for name in set(self.workers) - set(layout.workers):
            del self.workers[name]
        for name, worker in self.workers.items():
            worker.adopt(layout, brought[name])

    def _pass_gate(self, layout: Layout, brought: dict[Worker, dict[VShard, Shard]]) -> None:
        """Raises GateClosed, and nothing has changed."""
        # One process has one arithmetic.
        evidence = [
            worker.evidence(layout, brought.get(name, {}), "")
            for name, worker in self.workers.items()
        ]
        found = faults(evidence, layout, self.spine, step=self.step)
        if found:
            raise GateClosed(found)

    def _check(self, layout: Layout) -> None:
        found = problems(layout, self.spine)
        if found:
            raise MisuseError(f"not a layout for this run: {'; '.join(found)}")
