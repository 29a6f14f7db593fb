"""Who trains on which samples, so that each one is used exactly once a pass, through any churn.

A pure state machine that is part of the shared state and advances by commits alone. Positions are
places in the permuted order of one pass (`order.permuted`). A round goes like this: `assign` takes
a share of positions for each member out of the pool; the members train; the round's all-reduce
commits; its weights show whose work is in the sum; `settle` marks those shares as used and puts
the others back into the pool. All members compute the same ledger from the same commits.

With a `lead` shares are given out a round ahead, so that members can train on the next round's
while the last one's exchange is under way. What a lost member had comes back a round later, and a
pass ends with a round in which nobody has anything, because it is not known before whether
something comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    grown: int = 0
    """Samples of a batch now, if that is no longer `batch_size`."""

    @property
    def size(self) -> int:
        """Samples of a batch now."""
        return self.grown or self.batch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """`plan` is None while no data set is known; shares then only name the members."""

    plan: Plan | None = None
    epoch: int = 0
    """Passes over the data that are complete."""
    pool: Spans = ()
    """Positions of this pass that are neither used nor assigned."""
    shares: tuple[Share, ...] = ()
    """Of the oldest round that is not settled."""
    share_epoch: int = 0
    """The pass in which they were given out."""
    lead: bool = False
    ahead: tuple[Share, ...] = ()
    """With a lead: of the round after that."""
    ahead_epoch: int = 0
    late: tuple[Share, ...] = ()
    """Shares of the last settled round that go on in the next one."""

    def slot_of(self, peer: bytes) -> int | None:
        """The slot of this peer in the running round; None when it has no part in it."""
        return slot_in(self.shares, peer)


def slot_in(shares: Sequence[Share], peer: bytes) -> int | None:
    """The slot of this peer among these shares; None when it has none."""
    for slot, share in enumerate(shares):
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
    full = replace(ledger, plan=plan, pool=((0, plan.samples),), shares=(), ahead=())
    return assigned(full, [share.peer for share in ledger.shares])


def assigned(ledger: Ledger, members: Sequence[bytes]) -> Ledger:
    """Gives each member its share of the next round, in whole batches.

    Near the end of a pass, what is left is spread batch by batch over the members, so that nobody
    trains alone; a member may then get nothing. Requires that the last round is settled. With a
    lead: of the round after the next one, and at the beginning of both.
    """
    if ledger.ahead or (ledger.shares and not ledger.lead):
        raise ValueError("the running round is not settled")
    if not ledger.shares:
        shares, pool = _shares(ledger, members)
        ledger = replace(ledger, shares=shares, pool=pool, share_epoch=ledger.epoch, late=())
    if ledger.lead:
        shares, pool = _shares(ledger, members)
        ledger = replace(ledger, ahead=shares, pool=pool, ahead_epoch=ledger.epoch)
    return ledger


def _shares(ledger: Ledger, members: Sequence[bytes]) -> tuple[tuple[Share, ...], Spans]:
    """A share for each member out of the pool, and what is left there."""
    if ledger.plan is None:
        return tuple(Share(peer=peer) for peer in members), ledger.pool
    size = ledger.plan.size
    late = {share.peer: share for share in ledger.late if share.peer in members}
    gone = [share.spans for share in ledger.late if share.peer not in late]
    pool = union(ledger.pool, *gone)
    left = -(-count(pool) // size)
    shares: list[Share] = []
    for index, peer in enumerate(members):
        if peer in late:
            shares.append(late[peer])
            continue
        fair = -(-left // (len(members) - index))
        number = min(ledger.plan.steps, fair)
        spans, pool = take(pool, number * size)
        left -= number
        shares.append(Share(peer=peer, spans=spans))
    return tuple(shares), pool


def settled(
    ledger: Ledger,
    weights: Sequence[float],
    *,
    trained: Mapping[bytes, int] | None = None,
    late: Collection[bytes] = (),
) -> tuple[Ledger, tuple[Share, ...]]:
    """Ends the oldest round: (ledger without its shares, the shares that are used now).

    weights: by slot; a share whose weight is positive is in the committed sum, another goes back
    to the pool. trained: by peer, so many of its share's first samples are in the sum, and the rest
    goes back; who is not named trained on all. late: peers whose share, of weight 0, goes on in the
    next round (without a lead). When nothing is left the next pass begins with a full pool.
    """
    if len(weights) != len(ledger.shares):
        raise ValueError(f"{len(weights)} weights for {len(ledger.shares)} shares")
    used: tuple[Share, ...] = ()
    kept: tuple[Share, ...] = ()
    returned: list[Spans] = []
    for share, weight in zip(ledger.shares, weights, strict=True):
        if weight > 0:
            whole = count(share.spans)
            first, rest = take(share.spans, (trained or {}).get(share.peer, whole))
            used += (Share(peer=share.peer, spans=first),)
            returned.append(rest)
        elif share.peer in late and share.spans and not ledger.lead:
            kept += (share,)
        else:
            returned.append(share.spans)
    after = replace(
        ledger,
        pool=union(ledger.pool, *returned),
        shares=ledger.ahead,
        share_epoch=ledger.ahead_epoch if ledger.ahead else ledger.epoch,
        ahead=(),
        late=kept,
    )
    outstanding = any(share.spans for share in (*after.shares, *kept))
    if ledger.plan is not None and not after.pool and not outstanding:
        after = replace(after, epoch=ledger.epoch + 1, pool=((0, ledger.plan.samples),))
    return after, used


def grown(ledger: Ledger, size: int) -> Ledger:
    """Batches of `size` samples in the shares that are given out from now on."""
    if ledger.plan is None or ledger.lead:
        return ledger
    return replace(ledger, plan=replace(ledger.plan, grown=size))


def reassigned(ledger: Ledger, members: Sequence[bytes]) -> Ledger:
    """Begins the rounds that are not settled again with these members: no share was used."""
    while ledger.shares:
        ledger, _ = settled(ledger, [0.0] * len(ledger.shares))
    return assigned(ledger, members)


def to_json(ledger: Ledger) -> dict[str, Any]:
    """A JSON value that `from_json` turns back into an equal ledger."""
    plan = ledger.plan
    return {
        "plan": None if plan is None else asdict(plan),
        "epoch": ledger.epoch,
        "pool": [list(span) for span in ledger.pool],
        "shares": _shares_to_json(ledger.shares),
        "share_epoch": ledger.share_epoch,
        "lead": ledger.lead,
        "ahead": _shares_to_json(ledger.ahead),
        "ahead_epoch": ledger.ahead_epoch,
        "late": _shares_to_json(ledger.late),
    }


def _shares_to_json(shares: Iterable[Share]) -> list[dict[str, Any]]:
    return [
        {"peer": share.peer.hex(), "spans": [list(span) for span in share.spans]}
        for share in shares
    ]


def _shares_from_json(value: Iterable[Mapping[str, Any]]) -> tuple[Share, ...]:
    return tuple(
        Share(
            peer=bytes.fromhex(share["peer"]),
            spans=tuple((int(begin), int(end)) for begin, end in share["spans"]),
        )
        for share in value
    )


def from_json(value: Mapping[str, Any]) -> Ledger:
    """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
    plan = value["plan"]
    return Ledger(
        plan=None if plan is None else Plan(**plan),
        epoch=int(value["epoch"]),
        pool=tuple((int(begin), int(end)) for begin, end in value["pool"]),
        shares=_shares_from_json(value["shares"]),
        share_epoch=int(value.get("share_epoch", value["epoch"])),
        lead=bool(value.get("lead", False)),
        ahead=_shares_from_json(value.get("ahead", ())),
        ahead_epoch=int(value.get("ahead_epoch", value["epoch"])),
        late=_shares_from_json(value.get("late", ())),
    )
