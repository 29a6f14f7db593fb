"""Batches that grow by the norm test: the same size on all members, whoever comes and goes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from churn import Island, Job, Make

import atoll
from atoll.data.journal import audit, read
from atoll.methods.batch_size import AdaptiveBatchSize, squared_norm

STEPS = 3
GROWING = AdaptiveBatchSize(cap=48, eta=0.002, every=2)


def make(**options: Any) -> Make:
    chosen = {"adaptive_batch": GROWING, "sync_every": STEPS, **options}
    return lambda session, model, inner: atoll.DiLoCo(session, model, inner, **chosen)


def size_of(island: Island) -> int:
    assert island.method is not None
    assert island.method.ledger.plan is not None
    return island.method.ledger.plan.size


@pytest.mark.processes
@pytest.mark.parametrize(
    "options",
    [{}, {"codec": "int8", "allocation": 3}, {"codec": "int8", "error_feedback": "ef21"}],
    ids=str,
)
def test_all_take_the_same_size_through_churn(options: dict[str, Any], tmp_path: Path) -> None:
    """A death and a joiner, who trains in the size of the others; samples are used once a pass."""

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        number = job.islands.index(island)
        if number == 0 and round_ == 6 and step == 2:
            job.join_now(island)
        if number == 1 and round_ == 3 and step == 2:
            island.die()

    job = Job(
        make(**options),
        rounds=10,
        founders=3,
        on_step=on_step,
        samples=3000,
        settings={"log_dir": tmp_path},
    )
    with job:
        job.wait()
        assert job.unequal() == []
        living = [island for island in job.islands if island.error is None]
        assert len(living) == 3
        sizes = {size_of(island) for island in living}
        assert len(sizes) == 1
        assert 4 < sizes.pop() <= GROWING.cap
    assert audit(read(tmp_path), samples=3000, passes=0).problems == ()


@pytest.mark.processes
def test_the_size_is_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of two islands, beside the variance of their Deltas written out."""
    deltas: list[torch.Tensor] = []
    real = atoll.DiLoCo._reduced

    def noting(self: Any, staged: Any, vote: int) -> Any:
        deltas.append(staged.delta.clone())
        return real(self, staged, vote)

    monkeypatch.setattr(atoll.DiLoCo, "_reduced", noting)
    test = AdaptiveBatchSize(cap=10_000, eta=0.02)
    with Job(make(adaptive_batch=test, sync_every=1), rounds=1, founders=2) as job:
        job.wait()
        first, second = (delta.double() for delta in deltas)
        mean = (first + second) / 2
        variance = ((first - mean) ** 2 + (second - mean) ** 2).sum()
        assert job.islands[0].sums
        wanted = 4 * float(variance) / (0.02**2 * float((mean**2).sum()))
        assert 4 < wanted < 10_000
        assert size_of(job.islands[0]) == pytest.approx(wanted, rel=1e-3, abs=1)


def test_the_norm_is_summed_in_order() -> None:
    x = torch.randn(40_000, generator=torch.Generator().manual_seed(7))
    assert squared_norm(x) == pytest.approx(float(x.double().square().sum()), rel=1e-12)
    columns = [0.0] * (1 << 14)
    for index, value in enumerate(x.double().tolist()):
        columns[index % (1 << 14)] += value * value
    assert squared_norm(x) == math.fsum(columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cap": 0}, "cap must be at least 1 sample, not 0"),
        ({"cap": 8, "eta": 0.0}, r"eta must be above 0, not 0\.0"),
        ({"cap": 8, "every": 0}, "every must be at least 1 round, not 0"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(atoll.errors.MisuseError, match=message):
        AdaptiveBatchSize(**options)
