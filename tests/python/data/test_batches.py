"""An island whose data differs from the job's is told what differs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll import errors
from atoll.data.batches import check_plan
from atoll.data.ledger import Plan

JOBS = Plan(samples=100, batch_size=4, steps=5, seed=1, fingerprint="abc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 99}, "samples = 99, the job's 100"),
        ({"batch_size": 8}, "batch_size = 8, the job's 4"),
        ({"seed": 2}, "seed = 2, the job's 1"),
        ({"fingerprint": "x"}, "fingerprint = x, the job's abc"),
    ],
)
def test_a_difference_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(errors.MismatchError, match=message):
        check_plan(replace(JOBS, **change), JOBS)  # type: ignore[arg-type]


def test_the_same_is_accepted() -> None:
    check_plan(replace(JOBS), JOBS)
