"""What survivors tell each other after a loss, and what follows from it. Pure.

A step is redone or rolled forward, never taken back: it goes on to COMMIT if some survivor has seen
COMMIT, or if each vshard's gradient has been prepared with all survivors that hold the vshard;
otherwise survivors finish computing it. Either way the result has the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from atoll.elastic.identity import Spine, VShard, Worker
from atoll.elastic.layout import Layout
from atoll.elastic.placement import Move, moves
from atoll.elastic.transition import repaired
from atoll.elastic.tree import Node, leaves
from atoll.errors import StateUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What all workers know before anything is prepared: the clip factor, the step's loss."""

    factor: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What one worker has computed of a step in one of its stages, of layers [first, last).

    nodes: of the gradient tree, for all layers of the stage. outputs: micro-batches whose output of
    the stage it keeps for others; gradients: whose input gradient it keeps; tapes: whose forward
    pass it can go back through.
    """

    first: int
    last: int
    nodes: frozenset[Node] = frozenset()
    outputs: frozenset[int] = frozenset()
    gradients: frozenset[int] = frozenset()
    tapes: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one worker holds. `step` is the one it works on: the number of steps it has applied."""

    worker: Worker
    step: int
    committed: bool
    """It has seen COMMIT of `step`."""
    agreed: Agreed | None
    computed: tuple[Computed, ...]
    """Of each of its stages."""
    owned: Mapping[VShard, int]
    """Vshards and their versions: the number of updates that they have seen."""
    shadows: Mapping[VShard, int]
    prepared: Mapping[VShard, str]
    """Vshards whose clipped gradient of `step` it has, as owner or as backup, with its digest."""
    parameters: Mapping[VShard, int]
    """Of the layers of its stages: the version of each vshard that it computes with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redo:
    """What one stage has still to compute of a step, after a loss.

    forward, backward: passes to make. leaf: those backward passes whose gradient enters the tree;
    the others only remake a gradient that the stage below needs.
    """

    forward: frozenset[int]
    backward: frozenset[int]
    leaf: frozenset[int]


def fresh(spine: Spine, stages: int) -> tuple[Redo, ...]:
    """A step of which nothing is computed yet."""
    everything = frozenset(range(spine.micro_batches))
    return (Redo(forward=everything, backward=everything, leaf=everything),) * stages


def held(computed: Iterable[Computed], spine: Spine) -> frozenset[int]:
    """The micro-batches whose gradients the workers of one stage hold."""
    return frozenset(
        micro_batch
        for own in computed
        for node in own.nodes
        for micro_batch in leaves(node, spine.micro_batches)
    )


def redo(reports: Sequence[Report], layout: Layout, spine: Spine) -> tuple[Redo, ...]:
    """For each stage of `layout`, which has only survivors, the least work that finishes the step.

    What crosses a stage's border is kept until COMMIT, so a stage that lost a worker asks its
    neighbours for what they have sent before; they compute again only what died with somebody.
    """
    by_worker = {report.worker: report for report in reports}
    stages = [
        {
            worker: each
            for worker in stage.workers
            for each in by_worker[worker].computed
            if (each.first, each.last) == (stage.first, stage.last)
        }
        for stage in layout.stages
    ]
    everything = frozenset(range(spine.micro_batches))
    leaf = [everything - held(own.values(), spine) for own in stages]
    backward: list[frozenset[int]] = []
    for index, own in enumerate(stages):
        kept = _union(each.gradients for each in own.values())
        wanted = (backward[-1] - kept) if backward else frozenset()
        backward.append(leaf[index] | wanted)
    forward: list[frozenset[int]] = [frozenset()] * len(stages)
    above: frozenset[int] = frozenset()
    for index in reversed(range(len(stages))):
        stage = layout.stages[index]
        tapes = {worker: each.tapes for worker, each in stages[index].items()}
        taped = frozenset(
            micro_batch
            for micro_batch in backward[index]
            if micro_batch in tapes.get(stage.worker_of(micro_batch), frozenset())
        )
        kept = _union(each.outputs for each in stages[index].values())
        forward[index] = (backward[index] - taped) | (above - kept)
        above = forward[index]
    return tuple(
        Redo(forward=f, backward=b, leaf=own)
        for f, b, own in zip(forward, backward, leaf, strict=True)
    )


def _union(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset[int]().union(*sets)


def rolls_forward(reports: Sequence[Report], spine: Spine) -> bool:
    """Whether the step that was under way is complete with the survivors: it is applied as it is.

    True also when some have applied it already: they are a step ahead of the others. Not so while a
    copy of some vshard lacks the gradient: it would stay behind, and the next loss could hit the
    only one that went on.
    """
    if len({report.step for report in reports}) > 1 or any(r.committed for r in reports):
        return True
    digests: dict[VShard, set[str | None]] = {}
    for report in reports:
        for shard in {*report.owned, *report.shadows}:
            digests.setdefault(shard, set()).add(report.prepared.get(shard))
    # Of gradients that differ nobody has compared the digests yet: one was damaged on its way.
    found = (digests.get(shard, {None}) for shard in spine.shards())
    return all(len(own) == 1 and None not in own for own in found)


def next_step(reports: Sequence[Report], spine: Spine) -> int:
    """The step that survivors work on when what was decided has been applied."""
    steps = {report.step for report in reports}
    return max(steps) + (len(steps) == 1 and rolls_forward(reports, spine))


def current_holders(reports: Sequence[Report], spine: Spine) -> dict[VShard, list[Worker]]:
    """Who has each vshard's state for the next step: the update is made, or its gradient there."""
    step = next_step(reports, spine)
    found: dict[VShard, list[Worker]] = {shard: [] for shard in spine.shards()}
    for report in reports:
        for shard, version in (*report.owned.items(), *report.shadows.items()):
            if version == step or (version == step - 1 and shard in report.prepared):
                found[shard].append(report.worker)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What survivors do, in this order: roll forward, move, adopt the layout, go on computing."""

    agreed: Agreed | None
    """Of the step that those are to apply who have not; None where there is nothing to apply."""
    step: int
    """The one that all work on afterwards."""
    layout: Layout
    moves: tuple[Move, ...]
    redo: tuple[Redo, ...]
    """For each stage."""


def recovery(layout: Layout, reports: Sequence[Report], spine: Spine) -> Recovery:
    """The answer to a loss: the same for everybody who has the same reports.

    Raises StateUnavailable if a vshard has died with its owner and its backup.
    """
    there = current_holders(reports, spine)
    gone = [shard for shard, workers in there.items() if not workers]
    if gone:
        raise StateUnavailable(
            f"{len(gone)} vshards, the first {gone[0]}, were lost with their owners and backups: "
            "the run can only go on from a checkpoint"
        )
    step = next_step(reports, spine)
    after = repaired(layout, {report.worker for report in reports}, spine)
    then = [report if report.step == step else _begun(report, step) for report in reports]
    return Recovery(
        agreed=next((r.agreed for r in reports if r.agreed is not None and r.step < step), None),
        step=step,
        layout=after,
        moves=moves(there, after, spine),
        redo=redo(then, after, spine),
    )


def _begun(report: Report, step: int) -> Report:
    """The same worker at the beginning of the next step: nothing of it is computed."""
    return replace(report, step=step, computed=())
