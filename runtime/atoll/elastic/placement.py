"""Who owns each vshard and who backs it up, and what has to move for it. Pure.

Every layer is split over the workers of its stage by itself (interleaved ZeRO), so that a layer
that moves to another stage moves once and nothing else does. Backups are declustered: what one
worker owns is backed up by all others of its stage, a part by each, and whoever backs a vshard up
owns it if its owner dies. With V = D (D - 1) vshards a layer, both are even at D and at D - 1
workers, and after a loss no state moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from atoll.elastic.identity import Spine, VShard, Worker
from atoll.elastic.layout import Layout, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A vshard's state that somebody sends to somebody. critical: its owner waits for it."""

    shard: VShard
    source: Worker
    target: Worker
    critical: bool


def place(
    epoch: int,
    stages: Sequence[Stage],
    spine: Spine,
    *,
    before: Layout | None = None,
    keep_only: AbstractSet[Worker] | None = None,
    balance: bool = True,
    protect: bool = True,
) -> Layout:
    """Owners and backups for these stages, near to those of the layout before.

    keep_only: of the workers before, those whose state is still there (None: all that are in the
    stages). An owner stays if it is in the layer's stage; else its backup takes over; else a
    worker with the fewest vshards of the layer. balance: owners with more than their part hand
    some over, to the vshard's own backup where that evens it out (which moves nothing). protect:
    vshards without a backup get one; otherwise only those have one of which a copy is there.
    """
    everybody = list(dict.fromkeys(worker for stage in stages for worker in stage.workers))
    alive = set(everybody) if keep_only is None else set(keep_only) & set(everybody)
    owners: dict[int, tuple[Worker, ...]] = {}
    backups: dict[int, tuple[Worker | None, ...]] = {}
    load: Counter[Worker] = Counter()
    for stage in stages:
        for layer in stage.layers:
            had = _had(before, layer, spine.vshards, alive)
            row = _owners(stage.workers, had, balance=balance)
            owners[layer] = row
            others = stage.workers if len(stage.workers) > 1 else everybody
            backups[layer] = _backups(row, had, others, load, protect=protect)
    layers = range(spine.layers)
    return Layout(
        epoch=epoch,
        stages=tuple(stages),
        owners=tuple(owners[layer] for layer in layers),
        backups=tuple(backups[layer] for layer in layers),
    )


Pair = tuple[Worker | None, Worker | None]


def _had(before: Layout | None, layer: int, vshards: int, alive: AbstractSet[Worker]) -> list[Pair]:
    """(owner, backup) before, where they are still there."""
    if before is None:
        return [(None, None)] * vshards

    def there(worker: Worker | None) -> Worker | None:
        return worker if worker in alive else None

    return [
        (there(before.owner((layer, v))), there(before.backup((layer, v)))) for v in range(vshards)
    ]


def _owners(workers: Sequence[Worker], had: Sequence[Pair], *, balance: bool) -> tuple[Worker, ...]:
    row: list[Worker | None] = [
        next((worker for worker in pair if worker in workers), None) for pair in had
    ]
    load = Counter(worker for worker in row if worker is not None)
    for v, owner in enumerate(row):
        if owner is None:
            row[v] = min(workers, key=lambda worker: (load[worker], workers.index(worker)))
            load[row[v] or ""] += 1
    found = [worker for worker in row if worker is not None]
    while balance and max(load[w] for w in workers) - min(load[w] for w in workers) > 1:
        least = min(workers, key=lambda worker: (load[worker], workers.index(worker)))
        most = max(load[w] for w in workers)
        v = min(
            (v for v, owner in enumerate(found) if load[owner] == most),
            key=lambda v: (least not in had[v], v),
        )
        load[found[v]] -= 1
        load[least] += 1
        found[v] = least
    return tuple(found)


def _backups(
    owners: Sequence[Worker],
    had: Sequence[Pair],
    others: Sequence[Worker],
    load: Counter[Worker],
    *,
    protect: bool,
) -> tuple[Worker | None, ...]:
    """load: how many backups each worker has of all layers so far; counted on."""
    pairs: Counter[tuple[Worker, Worker]] = Counter()
    row: list[Worker | None] = [None] * len(owners)
    for v, owner in enumerate(owners):
        # Whoever has the state already stays, the old backup first.
        near = others if protect else [w for w in had[v] if w is not None]
        kept = next((w for w in reversed(had[v]) if w in near and w != owner), None)
        if kept is not None:
            row[v] = kept
            pairs[owner, kept] += 1
            load[kept] += 1
    for v, owner in enumerate(owners):
        choices = [worker for worker in others if worker != owner]
        if protect and row[v] is None and choices:
            chosen = min(choices, key=lambda w: (pairs[owner, w], load[w], others.index(w)))
            row[v] = chosen
            pairs[owner, chosen] += 1
            load[chosen] += 1
    return tuple(row)


Holders = Mapping[VShard, Sequence[Worker]]
"""Who has the newest state of each vshard."""


def moves(there: Holders, layout: Layout, spine: Spine) -> tuple[Move, ...]:
    """What has to be sent before `layout` stands.

    Sources are evened out. Vshards without elements move, too: they have a version. Those that
    nobody holds are left out (`recovery.recovery` refuses them).
    """
    sent: Counter[Worker] = Counter()
    found = []
    for critical in (True, False):
        for shard in spine.shards():
            target = layout.owner(shard) if critical else layout.backup(shard)
            have = there.get(shard, ())
            if target is None or target in have or not have:
                continue
            source = min(have, key=lambda worker: (sent[worker], worker))
            begin, end = spine.bounds(shard)
            sent[source] += end - begin
            found.append(Move(shard=shard, source=source, target=target, critical=critical))
    return tuple(found)


def holders(layout: Layout, alive: AbstractSet[Worker], spine: Spine) -> dict[VShard, list[Worker]]:
    """Of those alive, when everybody has adopted `layout`."""
    return {
        shard: [
            worker
            for worker in (layout.owner(shard), layout.backup(shard))
            if worker is not None and worker in alive
        ]
        for shard in spine.shards()
    }


def elements(made: Sequence[Move], spine: Spine) -> int:
    """Parameters whose state is moved: 12 bytes each, of p, m and v."""
    return sum(end - begin for begin, end in (spine.bounds(move.shard) for move in made))
