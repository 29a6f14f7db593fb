"""Batches by torch's workers: the same as without them, and only what was got counts."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate, get_worker_info

from atoll import errors
from atoll.data import ledger as ledgers
from atoll.data.batches import Limits, iterate
from atoll.data.loading import Loader

ME, OTHER = b"me", b"other"


class Pairs:
    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> dict[str, Any]:
        info = get_worker_info()
        return {
            "x": torch.tensor([index, index * index]),
            "worker": -1 if info is None else info.id,
        }


class Whole(Pairs):
    """Says how it was asked."""

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("one by one")

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [super(Whole, self).__getitem__(index) for index in indices]


class Rounds:
    """A method of two members that ends a round when `early` says so, or with its share."""

    def __init__(self, steps: int, early: dict[int, int] | None = None) -> None:
        self.sync_every = steps
        self.running = 0
        self.ledger = ledgers.assigned(ledgers.Ledger(), [ME, OTHER])
        self.drawn: list[int] = []
        self.used: list[ledgers.Share] = []
        self._early = early or {}
        self._steps = self._samples = 0

    @property
    def turn(self) -> int:
        return self.running

    @property
    def share(self) -> ledgers.Spans:
        return self.ledger.shares[0].spans

    @property
    def data_epoch(self) -> int:
        return self.ledger.epoch

    def open_ledger(self, plan: ledgers.Plan) -> None:
        self.ledger = ledgers.opened(self.ledger, plan)

    def begin_share(self, batches: int) -> None:
        self._steps = self._samples = 0

    def drew(self, samples: int, tokens: int) -> None:
        self.drawn.append(samples)
        self._samples += samples

    def step(self) -> None:
        self._steps += 1
        if self._steps == self._early.get(self.running):
            self.end_round()

    def end_round(self) -> None:
        self.ledger, used = ledgers.settled(self.ledger, [1.0, 1.0], trained={ME: self._samples})
        self.used += used
        self.ledger = ledgers.assigned(self.ledger, [ME, OTHER])
        self.running += 1

    def finish(self) -> None:
        pass


def run(method: Rounds, workers: int, dataset: Any = None, **options: Any) -> list[Any]:
    got = []
    loader = Loader(dataset or Pairs(), None, workers=workers, options=options)
    for batch in iterate(method, loader, Limits(), batch_size=4, seed=3):
        got.append(batch)
        method.step()
    return got


@pytest.mark.parametrize("dataset", [Pairs(), Whole()])
def test_workers_load_the_same_batches_in_the_same_order(dataset: Any) -> None:
    plain = run(Rounds(3), 0, dataset)
    loaded = run(Rounds(3), 2, dataset, prefetch_factor=4)
    assert len(plain) == len(loaded) > 6
    for one, other in zip(plain, loaded, strict=True):
        assert torch.equal(one["x"], other["x"])
        assert one["worker"].eq(-1).all()
        assert other["worker"].ge(0).all()
    assert {int(batch["worker"][0]) for batch in loaded} == {0, 1}


def test_what_was_loaded_ahead_and_not_got_is_not_used() -> None:
    """The second round ends after one of its three batches; two more have been loaded."""
    method = Rounds(3, early={1: 1})
    got = run(method, 2, prefetch_factor=4)
    seen = torch.cat([batch["x"][:, 0] for batch in got]).tolist()
    assert len(seen) == len(set(seen)) == sum(method.drawn)
    mine = sum(ledgers.count(share.spans) for share in method.used if share.peer == ME)
    assert mine == len(seen)
    assert sum(ledgers.count(share.spans) for share in method.used) == 60
    plain = run(Rounds(3, early={1: 1}), 0)
    assert seen == torch.cat([batch["x"][:, 0] for batch in plain]).tolist()


def test_workers_end_with_the_data() -> None:
    loader = Loader(Pairs(), default_collate, workers=1, options={})
    assert len(list(loader.batches([[0, 1], [2]]))) == 2
    assert loader._torch is not None
    iterator: Any = loader._torch._iterator
    (worker,) = iterator._workers
    del iterator
    loader.close()
    worker.join(20)
    assert worker.exitcode == 0


def test_an_error_of_the_data_set_reaches_the_user() -> None:
    loader = Loader(Pairs(), default_collate, workers=1, options={})
    with pytest.raises(TypeError, match="can't multiply"):
        list(loader.batches([["nonsense"]]))  # type: ignore[list-item]
    loader.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle": True}, "shuffle cannot be set"),
        ({"prefetch": 2}, "prefetch"),
        ({"prefetch_factor": -1, "num_workers": 0}, "prefetch_factor"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.MisuseError, match=message):
        Loader(Pairs(), default_collate, workers=1, options=options)


def test_the_workers_are_processes() -> None:
    pids = {int(batch["pid"][0]) for batch in run(Rounds(3), 1, Pids())}
    assert os.getpid() not in pids


class Pids(Pairs):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pid": os.getpid()}
