"""From one layout to the next. Pure.

A loss is answered twice. `repaired` keeps the split: survivors take over what the dead had, so that
nothing moves on the critical path and the running step is finished. `improved` then finds the
quickest split for who is there, and takes effect between two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise

from atoll.elastic.identity import Spine, Worker
from atoll.elastic.layout import Layout, Stage
from atoll.elastic.placement import place
from atoll.elastic.planner import Costs, Cuts, split, spread
from atoll.elastic.tree import shares
from atoll.errors import MisuseError


def first_layout(
    spine: Spine,
    workers: Sequence[Worker],
    *,
    pipeline: int,
    chunks: int = 1,
    costs: Costs | None = None,
) -> Layout:
    """Epoch 1. pipeline: groups of workers. chunks: stages of each.

    Raises MisuseError if there are more stages than layers, or groups than workers.
    """
    groups, cuts = _dealt(spine, workers, costs or even_costs(spine), pipeline, chunks)
    return place(1, _stages(spine, cuts, groups), spine)


def _dealt(
    spine: Spine, workers: Sequence[Worker], costs: Costs, pipeline: int, chunks: int
) -> tuple[list[tuple[Worker, ...]], Cuts]:
    counts = spread(len(workers), pipeline)
    cuts = split(costs, workers=counts, micro_batches=spine.micro_batches, chunks=chunks)
    groups, begin = [], 0
    for count in counts:
        groups.append(tuple(workers[begin : begin + count]))
        begin += count
    return groups, cuts


def even_costs(spine: Spine) -> Costs:
    """Where nothing was measured: every layer takes as long as any other."""
    return Costs(seconds=(1.0,) * spine.layers)


def cuts_of(layout: Layout) -> Cuts:
    return (0, *(stage.last for stage in layout.stages))


def _stages(spine: Spine, cuts: Cuts, groups: Sequence[tuple[Worker, ...]]) -> list[Stage]:
    """Groups take turns."""
    dealt = [shares(spine.micro_batches, len(group)) for group in groups]
    return [
        Stage(
            first=first,
            last=last,
            workers=groups[index % len(groups)],
            micro_batches=dealt[index % len(groups)],
        )
        for index, (first, last) in enumerate(pairwise(cuts))
    ]


def repaired(layout: Layout, survivors: AbstractSet[Worker], spine: Spine) -> Layout:
    """The same split without the dead; what they had is dealt out among the survivors.

    A survivor keeps its micro-batches, so that what it has computed counts. Vshards that lost a
    copy have no backup until the running step is done: `improved` protects them again. A group that
    lost all workers borrows one from the largest, if possible one with backups of its layers; if
    every group is down to one worker, there is a group less. Without survivors: MisuseError.
    """
    groups = [tuple(w for w in group if w in survivors) for group in layout.groups]
    if not any(groups):
        raise MisuseError("no worker survives: the run goes on from a checkpoint")
    for p, group in enumerate(groups):
        if not group:
            lender = _lender(layout, groups, p, spine)
            if lender is None:
                return _shrunk(layout, groups, spine)
            index, worker = lender
            groups[index] = tuple(w for w in groups[index] if w != worker)
            groups[p] = (worker,)
    stages = [
        _inherited(stage, groups[index % len(groups)]) for index, stage in enumerate(layout.stages)
    ]
    return place(
        layout.epoch + 1,
        stages,
        spine,
        before=layout,
        keep_only=survivors,
        balance=False,
        protect=False,
    )


def _lender(
    layout: Layout, groups: Sequence[tuple[Worker, ...]], empty: int, spine: Spine
) -> tuple[int, Worker] | None:
    """(group, worker) to lend; None if no group has two workers."""
    backups = [
        layout.backup((layer, v))
        for stage in layout.stages[empty :: len(groups)]
        for layer in stage.layers
        for v in range(spine.vshards)
    ]
    choices = [
        (len(group), backups.count(worker), index, worker)
        for index, group in enumerate(groups)
        if len(group) > 1
        for worker in group
    ]
    if not choices:
        return None
    _, _, index, worker = max(choices)
    return index, worker


def _shrunk(layout: Layout, groups: Sequence[tuple[Worker, ...]], spine: Spine) -> Layout:
    left = [group for group in groups if group]
    cuts = split(
        even_costs(spine),
        workers=[len(g) for g in left],
        micro_batches=spine.micro_batches,
        chunks=_chunks(layout, left),
    )
    alive = {worker for group in left for worker in group}
    return place(
        layout.epoch + 1,
        _stages(spine, cuts, left),
        spine,
        before=layout,
        keep_only=alive,
        balance=False,
        protect=False,
    )


def _chunks(layout: Layout, groups: Sequence[object]) -> int:
    """One group alone has nobody to take turns with."""
    return layout.chunks if len(groups) > 1 else 1


def _inherited(stage: Stage, group: tuple[Worker, ...]) -> Stage:
    """Survivors keep their micro-batches; the others' go, one by one, to who has the fewest."""
    kept = dict(zip(stage.workers, stage.micro_batches, strict=True))
    own = {worker: list(kept.get(worker, ())) for worker in group}
    orphans = [mb for worker, held in kept.items() if worker not in own for mb in held]
    for micro_batch in sorted(orphans):
        fewest = min(group, key=lambda worker: (len(own[worker]), group.index(worker)))
        own[fewest].append(micro_batch)
    return Stage(
        first=stage.first,
        last=stage.last,
        workers=group,
        micro_batches=tuple(tuple(sorted(own[worker])) for worker in group),
    )


def improved(
    layout: Layout,
    spine: Spine,
    costs: Costs,
    *,
    joined: Sequence[Worker] = (),
    left: AbstractSet[Worker] = frozenset(),
    speeds: Sequence[float] | None = None,
    slack: float = 0.0,
) -> Layout:
    """The quickest layout for who is there, between two steps.

    joined: workers that have no place yet; each goes to the group with the fewest. left: workers
    that leave politely; their state is still there to be fetched. speeds: of the groups.
    """
    groups = [[w for w in group if w not in left] for group in layout.groups]
    for worker in joined:
        min(groups, key=len).append(worker)
    while not all(groups):
        most = max(groups, key=len)
        if len(most) < 2:
            groups = [group for group in groups if group]
            break
        min(groups, key=len).append(most.pop())
    cuts = split(
        costs,
        workers=[len(group) for group in groups],
        micro_batches=spine.micro_batches,
        chunks=_chunks(layout, groups),
        speeds=speeds if speeds is None or len(speeds) == len(groups) else None,
        before=cuts_of(layout),
        slack=slack,
    )
    stages = _stages(spine, cuts, [tuple(group) for group in groups])
    return place(layout.epoch + 1, stages, spine, before=layout)


def reshaped(
    layout: Layout, spine: Spine, costs: Costs, *, pipeline: int, chunks: int = 1
) -> Layout:
    """Another number of groups or of their stages for the same workers, between two steps."""
    groups, cuts = _dealt(spine, layout.workers, costs, pipeline, chunks)
    return place(layout.epoch + 1, _stages(spine, cuts, groups), spine, before=layout)
