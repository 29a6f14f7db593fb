"""Rounds by seconds, weights by tokens, and rounds that go on without who is late."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from churn import Island, Job

import atoll
from atoll.data.journal import audit, read

pytestmark = pytest.mark.processes


def test_a_round_goes_on_without_who_is_late_and_counts_its_work_later(tmp_path: Path) -> None:
    """One island stands still in its second round until the others have done three more."""
    go_on = threading.Event()
    late: list[str] = []

    def make(session: Any, model: Any, inner: Any) -> Any:
        return atoll.DiLoCo(session, model, inner, sync_every=3, straggler_s=0.5)

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        if island is job.islands[1] and len(island.sums) == 5:
            late.append(island.name)
            assert go_on.wait(30)
        if island is job.islands[0] and round_ == 4:
            go_on.set()

    settings = {"log_dir": tmp_path}
    with Job(make, rounds=9, founders=2, on_step=on_step, samples=300, settings=settings) as job:
        job.wait()
        assert late
        assert job.unequal() == []
        first, second = job.islands
        assert second.method is not None
        assert second.method.stood_in >= 2  # type: ignore[attr-defined]
        without = [round_ for round_, did in second.contributed if not did]
        assert {2, 3} <= set(without)
        # It came back with the work of the round in which it was late.
        assert any(did for round_, did in second.contributed if round_ > 4)
        assert sorted(first.rounds) == list(range(1, 10))
    found = audit(read(tmp_path), samples=300, passes=0)
    assert found.problems == ()


def test_rounds_by_seconds_end_at_their_time_and_give_the_rest_back(tmp_path: Path) -> None:
    """An island with many steps left in its share uses what it has trained on, and no more."""
    slow = threading.Event()

    def make(session: Any, model: Any, inner: Any) -> Any:
        return atoll.DiLoCo(session, model, inner, sync_every=50, every="0.3s")

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        if island is job.islands[1]:
            slow.wait(0.1)  # a slow island: a tenth of a second a step

    settings = {"log_dir": tmp_path}
    with Job(make, rounds=4, founders=2, on_step=on_step, settings=settings) as job:
        job.wait()
        assert job.unequal() == []
        fast, slower = (len(island.sums) for island in job.islands)
        assert fast > slower
        journals = read(tmp_path)
    assert audit(journals, samples=1 << 16, passes=0).problems == ()
    used = {
        sum(e - b for entry in entries for b, e in entry.spans) for entries in journals.values()
    }
    assert used == {4 * (fast + slower)}  # batches of 4: all that were trained on, and no others


class Rows:
    """Samples of so many tokens."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(self._tokens, dtype=torch.int64)


def test_weights_by_tokens_samples_or_none() -> None:
    found = {}
    for weights in ("samples", "tokens", "steps", "equal"):
        with atoll.join({"metrics_port": -1}) as session:
            model = torch.nn.Linear(2, 1)
            inner = torch.optim.SGD(model.parameters(), lr=0.1)
            outer = atoll.DiLoCo(session, model, inner, sync_every=2, weights=weights)
            seen: list[float] = []
            real = outer._exchange

            def exchange(staged: Any, real: Any = real, seen: list[float] = seen) -> Any:
                seen.append(staged.weight)
                return real(staged)

            outer._exchange = exchange  # type: ignore[method-assign]
            for _ in session.batches(Rows(7), batch_size=4, rounds=1):
                outer.step()
            found[weights] = seen
    assert found == {"samples": [8.0], "tokens": [56.0], "steps": [2.0], "equal": [1.0]}
