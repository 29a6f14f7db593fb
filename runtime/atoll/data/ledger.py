"""Who trains on which samples, so that each one is used exactly once a pass, through any churn.

A pure state machine that is part of the shared state and advances by commits alone. Positions are
places in the permuted order of one pass (`order.permuted`). A round goes like this: `assign` takes
a share of positions for each member out of the pool; the members train; the round's all-reduce
commits; its weights show whose work is in the sum; `settle` marks those shares as used and puts
the others back into the pool. All members compute the same ledger from the same commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

Span = tuple[int, int]
"""Positions [begin, end)."""

Spans = tuple[Span, ...]
"""Sorted, disjoint, none empty, none touching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one member trains on in the running round. Its index in the ledger is its slot."""

    peer: bytes
    spans: Spans = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a ledger is opened with; the same on all members."""

    samples: int
    batch_size: int
    steps: int
    """Batches of one member in one round."""
    seed: int = 0
    """Of the order of the samples."""
    fingerprint: str = ""
    """Of the data set's content, if it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """`plan` is None while no data set is known; shares then only name the members."""

    plan: Plan | None = None
    epoch: int = 0
    """Passes over the data that are complete."""
    pool: Spans = ()
    """Positions of this pass that are neither used nor assigned."""
    shares: tuple[Share, ...] = ()

    def slot_of(self, peer: bytes) -> int | None:
        """The slot of this peer in the running round; None when it has no part in it."""
        for slot, share in enumerate(self.shares):
            if share.peer == peer:
                return slot
        return None


def count(spans: Iterable[Span]) -> int:
    """How many positions the spans hold."""
    return sum(end - begin for begin, end in spans)


def union(*groups: Iterable[Span]) -> Spans:
    """The spans of all groups together, normalized. The groups must be disjoint."""
    merged: list[Span] = []
    for begin, end in sorted(span for group in groups for span in group):
        if merged and begin < merged[-1][1]:
            raise ValueError(f"positions [{begin}, {merged[-1][1]}) are there twice")
        if merged and begin == merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return tuple(merged)


def take(spans: Spans, wanted: int) -> tuple[Spans, Spans]:
    """Splits the first `wanted` positions off: (taken, rest)."""
    taken: list[Span] = []
    for index, (begin, end) in enumerate(spans):
        if end - begin > wanted:
            if wanted:
                taken.append((begin, begin + wanted))
            return tuple(taken), ((begin + wanted, end), *spans[index + 1 :])
        taken.append((begin, end))
        wanted -= end - begin
    return tuple(taken), ()


def batches(spans: Spans, batch_size: int) -> Iterator[list[int]]:
    """The positions of a share, batch by batch; only the last may be smaller."""
    batch: list[int] = []
    for begin, end in spans:
        for position in range(begin, end):
            batch.append(position)
            if len(batch) == batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def opened(ledger: Ledger, plan: Plan) -> Ledger:
    """Opens a ledger on its data set: a full pool, and shares for the members named in it."""
    if plan.samples < 1 or plan.batch_size < 1 or plan.steps < 1:
        raise ValueError(f"a ledger needs samples, batch size and steps of at least 1, not {plan}")
    full = replace(ledger, plan=plan, pool=((0, plan.samples),), shares=())
    return assigned(full, [share.peer for share in ledger.shares])


def assigned(ledger: Ledger, members: Sequence[bytes]) -> Ledger:
    """Gives each member its share of the next round, in whole batches.

    Near the end of a pass, what is left is spread batch by batch over the members, so that nobody
    trains alone; a member may then get nothing. Requires that the last round is settled.
    """
    if ledger.shares:
        raise ValueError("the running round is not settled")
    if ledger.plan is None:
        return replace(ledger, shares=tuple(Share(peer=peer) for peer in members))
    size = ledger.plan.batch_size
    left = -(-count(ledger.pool) // size)
    pool = ledger.pool
    shares: list[Share] = []
    for index, peer in enumerate(members):
        fair = -(-left // (len(members) - index))
        number = min(ledger.plan.steps, fair)
        spans, pool = take(pool, number * size)
        left -= number
        shares.append(Share(peer=peer, spans=spans))
    return replace(ledger, pool=pool, shares=tuple(shares))


def settled(ledger: Ledger, weights: Sequence[float]) -> tuple[Ledger, tuple[Share, ...]]:
    """Ends the round: (ledger without shares, the shares that are used now).

    weights: by slot; a share whose weight is positive is in the committed sum, another goes back
    to the pool. When nothing is left the next pass begins with a full pool.
    """
    if len(weights) != len(ledger.shares):
        raise ValueError(f"{len(weights)} weights for {len(ledger.shares)} shares")
    pairs = list(zip(ledger.shares, weights, strict=True))
    used = tuple(share for share, weight in pairs if weight > 0)
    returned = [share.spans for share, weight in pairs if not weight > 0]
    after = replace(ledger, pool=union(ledger.pool, *returned), shares=())
    if ledger.plan is not None and not after.pool:
        after = replace(after, epoch=ledger.epoch + 1, pool=((0, ledger.plan.samples),))
    return after, used


def to_json(ledger: Ledger) -> dict[str, Any]:
    """A JSON value that `from_json` turns back into an equal ledger."""
    plan = ledger.plan
    return {
        "plan": None if plan is None else asdict(plan),
        "epoch": ledger.epoch,
        "pool": [list(span) for span in ledger.pool],
        "shares": [
            {"peer": share.peer.hex(), "spans": [list(span) for span in share.spans]}
            for share in ledger.shares
        ],
    }


def from_json(value: Mapping[str, Any]) -> Ledger:
    """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
    plan = value["plan"]
    return Ledger(
        plan=None if plan is None else Plan(**plan),
        epoch=int(value["epoch"]),
        pool=tuple((int(begin), int(end)) for begin, end in value["pool"]),
        shares=tuple(
            Share(
                peer=bytes.fromhex(share["peer"]),
                spans=tuple((int(begin), int(end)) for begin, end in share["spans"]),
            )
            for share in value["shares"]
        ),
    )
