"""Where a run begins: all workers together choose the newest checkpoint that all can read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from atoll.elastic.durable import Durable
from atoll.elastic.exchange import exchange, state_elements, states, unpacked
from atoll.elastic.identity import Worker
from atoll.elastic.layout import Layout
from atoll.elastic.outer_round import OuterRound
from atoll.elastic.parts import Stamp
from atoll.elastic.placement import Move
from atoll.elastic.requests import Gather, Program, dump, load
from atoll.elastic.routes import of_moves
from atoll.elastic.stage_worker import StageWorker
from atoll.errors import CheckpointError, MismatchError


def resumed(
    durable: Durable,
    worker: StageWorker,
    members: Sequence[Worker],
    layout: Layout,
    outer: OuterRound | None,
) -> Program[None]:
    """Fills what the worker holds in the first layout, and sets its step; nothing if there is no
    checkpoint. Each reads a part of the files to compare their digests, then what it needs.

    With an outer method all islands begin at one round: all that an island has are compared, and
    offered to the others. Raises CheckpointError when there are some and none is whole, or of one
    round, MismatchError when workers see different ones.
    """
    told = yield Gather(what="checkpoints", text=dump(found=durable.found(worker.spine.digest())))
    lists = [[(step, name) for step, name in load(told[m])["found"]] for m in members]
    common = [stamp for stamp in lists[0] if all(stamp in other for other in lists)]
    if any(lists) and not common:
        raise MismatchError(
            f"workers see different checkpoints at {durable.url}: all must reach the same folder "
            "or URL"
        )
    share = members.index(worker.name)
    problems = []
    whole: dict[int, Stamp] = {}
    """The newest of each round."""
    for stamp in common:
        if durable.round_of(stamp) in whole:
            continue
        wrong = durable.problem(stamp, share=share, of=len(members))
        told = yield Gather(what="whole", text=dump(wrong=wrong))
        said = [load(told[member])["wrong"] for member in members]
        found = [text for text in said if text is not None]
        if not found:
            whole[durable.round_of(stamp)] = stamp
            if outer is None:
                break
        problems += found
    if problems and not whole:
        raise CheckpointError(
            f"{durable.url}: none of the {len(common)} checkpoints is whole (the newest: "
            f"{problems[0]}); bring one back from a backup, or name another URL to begin anew"
        )
    at_round = 0
    if outer is not None:
        at_round = yield from outer.beginning(layout, sorted(whole) or [0])
    if at_round in whole:
        stamp = whole[at_round]
        held = {**worker.shadows, **worker.owned}
        durable.load(stamp, {shard: state.slots() for shard, state in held.items()})
        worker.restored(stamp[0], rounds=at_round)


def spread(worker: StageWorker, layout: Layout) -> Program[None]:
    """Workers that compute otherwise draw other parameters at first, too: what the owners begin
    with is everybody's. The stages get it when they are filled."""
    made = [
        Move(shard=shard, source=layout.owner(shard), target=backup, critical=True)
        for shard in worker.spine.shards()
        if (backup := layout.backup(shard)) is not None
    ]
    label = ("critical", layout.epoch, worker.step)
    content, size = partial(states, worker), partial(state_elements, worker)
    arrived = yield from exchange(worker.name, label, of_moves(made), content, size)
    worker.shadows.update(unpacked(worker, arrived))
