"""The user's iterator over the data: batches of this island's shares, round after round.

It belongs to the user's thread. When this island has no share of the running round (it has just
joined, or the pass is nearly over) it takes part in the round's exchange with weight zero and goes
on with the next, so the user's loop has no code for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from atoll import errors
from atoll.data import ledger as ledgers
from atoll.data.order import permuted

if TYPE_CHECKING:
    from collections.abc import Sequence


class RoundMethod(Protocol):
    """What a method shows to the data: the round, the ledger, and how to end a round."""

    sync_every: int
    round: int

    @property
    def ledger(self) -> ledgers.Ledger: ...
    def open_ledger(self, plan: ledgers.Plan) -> None: ...
    def begin_share(self, batches: int) -> None: ...
    def drew(self, samples: int, tokens: int) -> None: ...
    def end_round(self) -> None: ...


class Dataset(Protocol):
    """A map-style data set."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def iterate(
    method: RoundMethod,
    peer: bytes,
    dataset: Dataset,
    *,
    batch_size: int,
    rounds: int | None,
    epochs: int | None,
    seed: int,
    collate: Callable[[Sequence[Any]], Any],
) -> Iterator[Any]:
    """Batches until `rounds` outer rounds or `epochs` passes are over, whichever comes first.

    Raises MisuseError when the data set is empty or differs from that of the other islands.
    """
    samples = len(dataset)
    if samples < 1:
        raise errors.MisuseError("the data set is empty")
    plan = ledgers.Plan(
        samples=samples,
        batch_size=batch_size,
        steps=method.sync_every,
        seed=seed,
        fingerprint=str(getattr(dataset, "fingerprint", "")),
    )
    if method.ledger.plan is None:
        method.open_ledger(plan)
    else:
        check_plan(plan, method.ledger.plan)
    while (rounds is None or method.round < rounds) and (
        epochs is None or method.ledger.epoch < epochs
    ):
        yield from _round(method, peer, dataset, plan, collate)


def check_plan(mine: ledgers.Plan, jobs: ledgers.Plan) -> None:
    """Raises MismatchError that names what differs."""
    for name, value in asdict(mine).items():
        theirs = getattr(jobs, name)
        if value != theirs:
            raise errors.MismatchError(
                f"this island's data has {name} = {value}, the job's {theirs}; "
                "start it with the same data set, batch size, sync_every and seed"
            )


def _round(
    method: RoundMethod,
    peer: bytes,
    dataset: Dataset,
    plan: ledgers.Plan,
    collate: Callable[[Sequence[Any]], Any],
) -> Iterator[Any]:
    running, ledger = method.round, method.ledger
    slot = ledger.slot_of(peer)
    spans = () if slot is None else ledger.shares[slot].spans
    method.begin_share(-(-ledgers.count(spans) // plan.batch_size))
    for positions in ledgers.batches(spans, plan.batch_size):
        chosen = [
            dataset[permuted(at, count=plan.samples, seed=plan.seed, epoch=ledger.epoch)]
            for at in positions
        ]
        batch = collate(chosen)
        method.drew(len(positions), tokens_of(batch, len(positions)))
        yield batch
        if method.round != running:
            return
    if method.round == running:
        method.end_round()


def tokens_of(batch: Any, samples: int) -> int:
    """Tokens of a batch: the elements of its first tensor if that holds integers, else samples."""
    first = batch
    while isinstance(first, (tuple, list)) and first:
        first = first[0]
    if isinstance(first, dict) and first:
        first = next(iter(first.values()))
    numel = getattr(first, "numel", None)
    dtype = getattr(first, "dtype", None)
    if numel is None or dtype is None or dtype.is_floating_point:
        return samples
    return int(numel())
