"""Who sends what to whom in each part of a step: pure functions of the layout.

Sender and receiver compute the same lists, so a message needs no header, and what belongs to one
pair of workers travels as one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll.elastic.identity import Spine, VShard, Worker
from atoll.elastic.layout import Layout
from atoll.elastic.placement import Move
from atoll.elastic.recovery import Redo, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one worker sends to another: parts of these vshards, in this order."""

    source: Worker
    target: Worker
    shards: tuple[VShard, ...]


def grouped(pairs: Sequence[tuple[Worker, Worker, VShard]]) -> tuple[Route, ...]:
    """(source, target, vshard) by pairs of workers; nobody sends to itself."""
    found: dict[tuple[Worker, Worker], list[VShard]] = {}
    for source, target, shard in pairs:
        if source != target:
            found.setdefault((source, target), []).append(shard)
    return tuple(
        Route(source=source, target=target, shards=tuple(shards))
        for (source, target), shards in found.items()
    )


def to_owners(layout: Layout, spine: Spine) -> tuple[Route, ...]:
    """REDUCE: everybody in a stage to the owners of the vshards that its layers compute with."""
    return grouped(
        [(worker, layout.owner(shard), shard) for worker, shard in _computed_with(layout, spine)]
    )


def _computed_with(layout: Layout, spine: Spine) -> tuple[tuple[Worker, VShard], ...]:
    """Each once, though several layers of a worker may be tied to a vshard."""
    found = (
        (worker, shard)
        for stage in layout.stages
        for used in [[shard for layer in stage.layers for shard in spine.used(layer)]]
        for worker in stage.workers
        for shard in used
    )
    return tuple(dict.fromkeys(found))


def gradients_in(route: Route, layout: Layout, spine: Spine) -> tuple[tuple[VShard, int], ...]:
    """REDUCE: of which vshards a route brings the gradients that which layers have made."""
    held = {layer for i in layout.stages_of(route.source) for layer in layout.stages[i].layers}
    return tuple(
        (shard, layer) for shard in route.shards for layer in spine.users(shard) if layer in held
    )


Others = Mapping[VShard, Sequence[Worker]]
"""Who follows a vshard besides its owner and its backup."""


def to_backups(layout: Layout, spine: Spine, also: Others) -> tuple[Route, ...]:
    """PREPARE: owners to backups, and to those whom the vshards are on their way to."""
    return grouped(
        [
            (layout.owner(shard), target, shard)
            for shard in spine.shards()
            for target in (layout.backup(shard), *also.get(shard, ()))
            if target is not None
        ]
    )


Versions = Mapping[Worker, Mapping[VShard, int]]
"""By worker: the version of each vshard that it computes with."""


def to_stage(
    layout: Layout, spine: Spine, *, step: int, versions: Versions | None = None
) -> tuple[Route, ...]:
    """Parameters from their owners to all who compute with them and do not have them at this step.

    versions: None after an update, when nobody has them but the owner.
    """
    return grouped(
        [
            (layout.owner(shard), worker, shard)
            for worker, shard in _computed_with(layout, spine)
            if versions is None or versions.get(worker, {}).get(shard) != step
        ]
    )


def of_moves(made: Sequence[Move]) -> tuple[Route, ...]:
    return grouped([(move.source, move.target, move.shard) for move in made])


def versions_in(layout: Layout, reports: Sequence[Report], spine: Spine) -> Versions:
    """Of what each keeps when it takes its place in `layout`: memory of layers that it has there
    and had before."""
    layers: dict[Worker, set[int]] = {}
    for stage in layout.stages:
        for worker in stage.workers:
            layers.setdefault(worker, set()).update(stage.layers)
    found = {}
    for report in reports:
        had = {layer for each in report.computed for layer in range(each.first, each.last)}
        has = layers.get(report.worker, set())
        found[report.worker] = {
            shard: version
            for shard, version in report.parameters.items()
            if (carriers := spine.carriers(shard, has)) and carriers <= had
        }
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One worker's part of COMPUTE in one of its stages, by micro-batch.

    inputs, gradients: what it waits for, and from whom. outputs_to, gradients_to: what it sends,
    and to whom; at once where it is kept from before, else after the pass.
    """

    forward: frozenset[int]
    backward: frozenset[int]
    leaf: frozenset[int]
    inputs: Mapping[int, Worker]
    gradients: Mapping[int, Worker]
    outputs_to: Mapping[int, Worker]
    gradients_to: Mapping[int, Worker]


def part(layout: Layout, todo: Sequence[Redo], index: int, worker: Worker) -> Part:
    """Whoever has a micro-batch in the layout is also who keeps what was made of it before.

    index: of the stage.
    """
    own = frozenset(layout.micro_batches_of(worker))
    forward, backward = todo[index].forward & own, todo[index].backward & own
    below = layout.stages[index - 1] if index > 0 else None
    above = layout.stages[index + 1] if index + 1 < len(layout.stages) else None
    return Part(
        forward=forward,
        backward=backward,
        leaf=todo[index].leaf & own,
        inputs={mb: below.worker_of(mb) for mb in forward} if below else {},
        gradients={mb: above.worker_of(mb) for mb in backward} if above else {},
        outputs_to=(
            {mb: above.worker_of(mb) for mb in todo[index + 1].forward & own} if above else {}
        ),
        gradients_to=(
            {mb: below.worker_of(mb) for mb in todo[index - 1].backward & own} if below else {}
        ),
    )
