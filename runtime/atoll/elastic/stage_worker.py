"""One worker's part of an elastic island: its layers, its sums, its vshards. No I/O.

Whoever drives it (one process for all workers, or a process for each) carries tensors from one
worker to another. What a method returns stays the worker's: who keeps it copies it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from atoll import _core
from atoll.elastic import adamw, flat
from atoll.elastic.gate import OUTER_SLOTS, SLOTS, Copy, Evidence
from atoll.elastic.identity import VShard, Worker
from atoll.elastic.layout import Layout, Stage
from atoll.elastic.passes import Passes
from atoll.elastic.recovery import Agreed, Report
from atoll.elastic.task import Layer, Task
from atoll.elastic.tree import Merger, Node
from atoll.errors import MisuseError
from atoll.methods.outer import outer_gradient

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True, kw_only=True)
class Shard:
    """A vshard's state, [n] each. `version` counts the updates that it has seen."""

    p: Tensor
    m: Tensor
    v: Tensor
    version: int = 0
    shared: Tensor | None = None
    """With an outer method: where all islands began their round."""
    momentum: Tensor | None = None
    """With an outer method: that of its step."""

    def slots(self) -> dict[str, Tensor]:
        """All that is a vshard's state, always in this order."""
        named = {name: getattr(self, name) for name in (*SLOTS, *OUTER_SLOTS)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def copy(self) -> Copy:
        """What the gate compares."""
        slots = {name: flat.digest(tensor) for name, tensor in self.slots().items()}
        return Copy(version=self.version, slots=slots)

    def copied(self) -> Shard:
        slots = {name: tensor.clone() for name, tensor in self.slots().items()}
        return Shard(**slots, version=self.version)


class Update(NamedTuple):
    """One step of the optimizer, of one vshard; step counts from 1."""

    state: Shard
    gradient: Tensor
    settings: adamw.AdamW
    step: int

    def make(self) -> None:
        state = self.state
        adamw.apply(self.settings, state.p, state.m, state.v, self.gradient, step=self.step)


class StageWorker:
    """See the module. Calls that do not fit what it holds are MisuseErrors."""

    def __init__(self, name: Worker, task: Task) -> None:
        self.name = name
        self.task = task
        self.spine = task.spine()
        self.step = 0
        """How many steps it has applied; the one it works on."""
        self.rounds = 0
        """How many rounds of an outer method."""
        self.slots = SLOTS if task.outer is None else (*SLOTS, *OUTER_SLOTS)
        self.layers: dict[int, Layer] = {}
        self._stages: tuple[tuple[int, int], ...] = ()
        """Layers [first, last) of each of its stages."""
        self.owned: dict[VShard, Shard] = {}
        self._shadows: dict[VShard, Shard] = {}
        self._late: list[Update] = []
        """Of shadows: not made yet."""
        self._versions: dict[VShard, int] = {}
        self._borders: list[Tensor] = []
        self._begin_step()

    @property
    def shadows(self) -> dict[VShard, Shard]:
        """Copies of others' vshards, for which this worker is the backup."""
        self.settle()
        return self._shadows

    def settle(self) -> None:
        """Makes the updates of shadows that `apply` has left: when there is nothing else to do, or
        somebody asks for shadows."""
        late, self._late = self._late, []
        for update in late:
            update.make()

    def _begin_step(self) -> None:
        self.committed = False
        self.agreed: Agreed | None = None
        self._sums: dict[int, Merger[Tensor]] = {
            layer: Merger(self.spine.micro_batches, flat.add) for layer in self.layers
        }
        self._passes = {
            (first, last): Passes(
                self.task,
                [self.layers[layer] for layer in range(first, last)],
                self._sums,
                step=self.step,
                border=self._border,
            )
            for first, last in self._stages
        }
        self.forget_reduction()

    def forget_reduction(self) -> None:
        """Drops what REDUCE and PREPARE have brought; what was computed stays."""
        self._totals: dict[tuple[VShard, int], Merger[Tensor]] = {}
        self._gradients: dict[VShard, Tensor] = {}
        self._prepared: dict[VShard, Tensor] = {}

    def passes(self, stage: Stage) -> Passes:
        """Through a stage that it holds: this step's. Raises MisuseError for another."""
        try:
            return self._passes[stage.first, stage.last]
        except KeyError:
            raise MisuseError(
                f"{self.name} does not hold the layers {stage.first} to {stage.last - 1}"
            ) from None

    @property
    def losses(self) -> dict[int, float]:
        """By micro-batch, where it holds the last layer."""
        return {mb: loss for each in self._passes.values() for mb, loss in each.losses.items()}

    def _border(self, layer: int) -> Tensor:
        if not self._borders:
            self._borders = self.task.borders()
        return self._borders[layer]

    def report(self) -> Report:
        return Report(
            worker=self.name,
            step=self.step,
            committed=self.committed,
            agreed=self.agreed,
            computed=tuple(each.computed() for each in self._passes.values()),
            owned={shard: state.version for shard, state in self.owned.items()},
            shadows={shard: state.version for shard, state in self.shadows.items()},
            prepared=self.prepared_digests(),
            parameters=dict(self._versions),
        )

    # ---- REDUCE ----------------------------------------------------------------------------------

    def nodes(self, shard: VShard, layer: int) -> list[tuple[Node, Tensor]]:
        """The sums that this worker has of the gradient that a layer makes of a vshard: [n] each,
        or the tied parameters' part of it for another layer than the vshard's own."""
        sums = self._sums[layer]
        if layer == shard[0]:
            begin, end = self.spine.bounds(shard)
            return [(node, sums.value(node)[begin:end]) for node in sums.nodes()]
        return [(node, self._tied_part(sums.value(node), shard, layer)) for node in sums.nodes()]

    def _tied_part(self, gradients: Tensor, shard: VShard, layer: int) -> Tensor:
        found = []
        for common in self.spine.overlaps(shard, layer):
            begin = common.tie.at + common.at
            found.append(gradients[begin : begin + common.end - common.begin])
        return torch.cat(found)

    def take_nodes(self, shard: VShard, layer: int, nodes: list[tuple[Node, Tensor]]) -> None:
        """The owner: sums of one worker that has the layer. Copies them."""
        merger = self._totals.setdefault((shard, layer), Merger(self.spine.micro_batches, flat.add))
        for node, value in nodes:
            merger.put(node, value.clone())

    def gradient(self, shard: VShard) -> Tensor:
        """The owner: a vshard's whole gradient [n], of all layers that compute with it."""
        if shard not in self._gradients:
            own, *others = self.spine.users(shard)
            total = self._totals[shard, own].total()
            for layer in others:
                tied, at = self._totals[shard, layer].total(), 0
                for common in self.spine.overlaps(shard, layer):
                    size = common.end - common.begin
                    total[common.begin : common.end] += tied[at : at + size]
                    at += size
            self._gradients[shard] = total
        return self._gradients[shard]

    def squares(self) -> list[float]:
        """The blocks' sums of squares of all vshards that this worker owns."""
        return [x for shard in self.owned for x in flat.squares(self.gradient(shard))]

    def agree(self, agreed: Agreed) -> None:
        """What everybody's squares and losses came to."""
        self.agreed = agreed

    # ---- PREPARE, COMMIT, APPLY ------------------------------------------------------------------

    def prepare(self, shard: VShard) -> Tensor:
        """The owner: the vshard's clipped gradient [n], for its backup."""
        if self.agreed is None:
            raise MisuseError("nothing can be prepared before the clip factor is agreed upon")
        gradient = self.gradient(shard) * self.agreed.factor
        self._prepared[shard] = gradient
        return gradient

    def take_prepared(self, shard: VShard, gradient: Tensor) -> None:
        """The backup: keeps the gradient, which nobody writes to."""
        self._prepared[shard] = gradient

    def prepared_digest(self, shards: Sequence[VShard]) -> str:
        """Of the clipped gradients of these vshards: what owner and backup compare."""
        return flat.digest(*(self._prepared[shard] for shard in shards))

    def prepared_digests(self) -> dict[VShard, str]:
        """Of all clipped gradients of this step that are held here."""
        return {shard: flat.digest(gradient) for shard, gradient in self._prepared.items()}

    def commit(self, agreed: Agreed) -> None:
        """The step is decided, whoever dies from now on."""
        self.agreed = agreed
        self.committed = True

    def apply(self, landed: Mapping[VShard, Shard] | None = None) -> None:
        """Updates all vshards that are held here, and ends the step.

        The owner of a vshard and its backup do the same, from the same bits; so do those whom it
        was brought to in this step (landed). Nobody waits for a shadow, so its update is left for
        later (`settle`). A state whose gradient never came stays behind: it is no copy any more,
        and is replaced in the next layout.
        """
        if not self.committed:
            raise MisuseError(f"step {self.step} is not committed")
        settings = self.task.settings(self.step)
        shadows = self.shadows
        for table in (self.owned, landed or {}, shadows):
            for shard, state in table.items():
                gradient = self._prepared.get(shard)
                if state.version == self.step and gradient is not None:
                    state.version = self.step + 1
                    update = Update(state, gradient, settings, state.version)
                    if table is shadows:
                        self._late.append(update)
                    else:
                        update.make()
        self.step += 1
        self._begin_step()

    def way(self, shard: VShard) -> Tensor:
        """How far this island has come in this round: [n], old minus new."""
        state = self.owned[shard]
        if state.shared is None:
            raise MisuseError("this island has no outer method")
        return outer_gradient(state.shared, state.p)

    def shared_digests(self) -> dict[VShard, str]:
        """Of the points where this round began, for all vshards that are held here."""
        held = (*self.owned.items(), *self.shadows.items())
        return {s: flat.digest(each.shared) for s, each in held if each.shared is not None}

    def apply_round(self, sums: Mapping[VShard, Tensor], islands: int) -> None:
        """The outer step of all vshards that are held here; from there all go on.

        sums: of the islands' ways. The parameters that layers compute with are behind now.
        """
        assert self.task.outer is not None
        for shard, state in (*self.owned.items(), *self.shadows.items()):
            shared, momentum = state.shared, state.momentum
            if shared is None or momentum is None:
                raise MisuseError(f"vshard {shard} has no outer state")
            _core.nesterov_step(
                shared.data_ptr(),
                momentum.data_ptr(),
                shared.data_ptr(),
                momentum.data_ptr(),
                sums[shard].contiguous().data_ptr(),
                shared.numel(),
                1.0 / islands,
                self.task.outer.lr,
                self.task.outer.momentum,
            )
            state.p.copy_(shared)
        self._versions = dict.fromkeys(self._versions, -1)
        self.rounds += 1

    def write_parameters(self, shard: VShard, p: Tensor, version: int) -> None:
        """Who computes with the vshard: what the owner's update has made of its parameters."""
        for index in self.spine.carriers(shard, self.layers.keys()):
            layer = self.layers[index]
            if index == shard[0]:
                begin, end = self.spine.bounds(shard)
                layer.parameters[begin:end].copy_(p)
            for common in self.spine.overlaps(shard, index):
                end = common.at + common.end - common.begin
                layer.tied[common.tie][common.at : end].copy_(p[common.begin : common.end])
        self._versions[shard] = version

    def behind(self) -> list[VShard]:
        """Vshards that its layers compute with, whose parameters are not those of this step yet."""
        return [shard for shard, version in self._versions.items() if version != self.step]

    # ---- layouts ---------------------------------------------------------------------------------

    def start(self, layout: Layout) -> None:
        """Takes its place in the first layout, with the parameters that the model begins with."""
        self.step, self.layers, self.owned, self._shadows, self._versions = 0, {}, {}, {}, {}
        self._late = []
        self._hold_layers(layout)
        self._versions = dict.fromkeys(self._versions, 0)
        for layer in range(self.spine.layers):
            begun = self.layers.get(layer) or self.task.layer(layer)
            for v in range(self.spine.vshards):
                shard = (layer, v)
                begin, end = self.spine.bounds(shard)
                for role, table in (
                    (layout.owner(shard), self.owned),
                    (layout.backup(shard), self.shadows),
                ):
                    if role == self.name:
                        p = begun.parameters[begin:end].clone()
                        state = Shard(p=p, m=torch.zeros_like(p), v=torch.zeros_like(p))
                        if self.task.outer is not None:
                            state.shared, state.momentum = p.clone(), torch.zeros_like(p)
                        table[shard] = state

    def restored(self, step: int, *, rounds: int) -> None:
        """All slots of all vshards that are held here were filled: they are of this step."""
        for state in (*self.owned.values(), *self.shadows.values()):
            state.version = step
        self.step, self.rounds = step, rounds
        self._begin_step()

    def join(self, step: int) -> None:
        """A worker that has nothing yet goes on with the others at this step."""
        self.step = step
        self._begin_step()

    def adopt(self, layout: Layout, brought: Mapping[VShard, Shard]) -> None:
        """Takes its place in the next layout, with the vshards brought to it.

        What it holds already changes its role for nothing. Everything is checked before anything
        changes: MisuseError if a vshard is missing.
        """
        own = {**self.shadows, **self.owned}
        there = {**brought, **{s: state for s, state in own.items() if state.version == self.step}}
        owned = [s for s in self.spine.shards() if layout.owner(s) == self.name]
        shadows = [s for s in self.spine.shards() if layout.backup(s) == self.name]
        missing = [shard for shard in (*owned, *shadows) if shard not in there]
        if missing:
            raise MisuseError(f"{self.name} lacks the vshards {missing} of the next layout")
        self.owned = {shard: there[shard] for shard in owned}
        self._shadows = {shard: there[shard] for shard in shadows}
        if self._stages != _stages_of(layout, self.name):
            self._hold_layers(layout)

    def evidence(
        self, layout: Layout, brought: Mapping[VShard, Shard], arithmetic: str
    ) -> Evidence:
        """For the gate: what it has, before and after the moves; what was brought counts first."""
        held = {**self.shadows, **self.owned, **brought}
        return Evidence(
            worker=self.name,
            spine=self.spine.digest(),
            layout=layout.digest(),
            arithmetic=arithmetic,
            step=self.step,
            copies={shard: state.copy() for shard, state in held.items()},
        )

    def _hold_layers(self, layout: Layout) -> None:
        """Keeps the layers that stay; new ones have to be filled by `write_parameters`. What was
        computed of the step is dropped."""
        had = self.layers
        self._stages = _stages_of(layout, self.name)
        self.layers = {
            index: had.get(index) or self.task.layer(index)
            for first, last in self._stages
            for index in range(first, last)
        }
        used = dict.fromkeys(s for layer in self.layers for s in self.spine.used(layer))
        kept = {
            s: version
            for s, version in self._versions.items()
            if s in used and self.spine.carriers(s, self.layers.keys()) <= had.keys()
        }
        self._versions = {shard: kept.get(shard, -1) for shard in used}
        for held in self.layers.values():
            held.share(self.layers)
        self._begin_step()


def _stages_of(layout: Layout, worker: Worker) -> tuple[tuple[int, int], ...]:
    """Layers [first, last) of each of a worker's stages."""
    stages = (layout.stages[index] for index in layout.stages_of(worker))
    return tuple((stage.first, stage.last) for stage in stages)
