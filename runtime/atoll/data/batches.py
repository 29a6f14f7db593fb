"""The user's iterator over the data: batches of this island's shares, round after round.

It belongs to the user's thread. When this island has no share of the running round (it has just
joined, or the pass is nearly over) it takes part in the round's exchange with weight zero and goes
on with the next, so the user's loop has no code for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from atoll import errors
from atoll.data import ledger as ledgers
from atoll.data.loading import Loader
from atoll.data.order import permuted


class RoundMethod(Protocol):
    """What a method shows to the data: the round, the ledger, and how to end a round."""

    sync_every: int
    running: int
    """The round that this island is in; the exchanges of the one before may be under way."""

    turn: int
    """Changes when this island begins with another share."""

    @property
    def ledger(self) -> ledgers.Ledger: ...
    @property
    def share(self) -> ledgers.Spans: ...
    @property
    def data_epoch(self) -> int: ...
    def open_ledger(self, plan: ledgers.Plan) -> None: ...
    def begin_share(self, batches: int) -> None: ...
    def drew(self, samples: int, tokens: int) -> None: ...
    def end_round(self) -> None: ...
    def finish(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends the data: `rounds` outer rounds or `epochs` passes, whichever comes first; one pass
    when neither is given. `is_over` is asked after each round and ends them, too."""

    rounds: int | None = None
    epochs: int | None = None
    is_over: Callable[[], bool] = lambda: False

    def reached(self, rounds: int, epochs: int) -> bool:
        passes = 1 if self.rounds is None and self.epochs is None else self.epochs
        done = self.rounds is not None and rounds >= self.rounds
        return done or (passes is not None and epochs >= passes) or self.is_over()


def iterate(
    method: RoundMethod, loader: Loader, limits: Limits, *, batch_size: int, seed: int
) -> Iterator[Any]:
    """Batches until the limits are reached; closes the loader.

    Raises MisuseError when the data set is empty, MismatchError when it differs from that of the
    other islands.
    """
    dataset = loader.dataset
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
    while not limits.reached(method.running, method.data_epoch):
        yield from _round(method, method.ledger.plan or plan, loader)
    loader.close()
    method.finish()


def check_plan(mine: ledgers.Plan, jobs: ledgers.Plan) -> None:
    """Raises MismatchError that names what differs."""
    for name, value in asdict(replace(mine, grown=jobs.grown)).items():
        theirs = getattr(jobs, name)
        if value != theirs:
            raise errors.MismatchError(
                f"this island's data has {name} = {value}, the job's {theirs}; "
                "start it with the same data set, batch size, sync_every and seed"
            )


def _round(method: RoundMethod, plan: ledgers.Plan, loader: Loader) -> Iterator[Any]:
    turn, spans, epoch = method.turn, method.share, method.data_epoch
    method.begin_share(-(-ledgers.count(spans) // plan.size))
    lists = (
        [permuted(at, count=plan.samples, seed=plan.seed, epoch=epoch) for at in positions]
        for positions in ledgers.batches(spans, plan.size)
    )
    loaded = loader.batches(lists) if spans else ()
    for positions, batch in zip(ledgers.batches(spans, plan.size), loaded, strict=True):
        method.drew(len(positions), tokens_of(batch, len(positions)))
        yield batch
        if method.turn != turn:
            return
    if method.turn == turn:
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
