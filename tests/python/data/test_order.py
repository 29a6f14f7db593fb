"""The permutation: one to one, seeded, the same everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.data.order import permuted


@given(st.integers(1, 400), st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_one_to_one(count: int, seed: int, epoch: int) -> None:
    found = [permuted(at, count=count, seed=seed, epoch=epoch) for at in range(count)]
    assert sorted(found) == list(range(count))


def test_known_values() -> None:
    """These must never change: a run that is continued would see samples twice."""
    assert [permuted(at, count=10, seed=1, epoch=0) for at in range(10)] == KNOWN


def test_seed_and_epoch_matter() -> None:
    orders = {
        tuple(permuted(at, count=50, seed=seed, epoch=epoch) for at in range(50))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="not in"):
        permuted(10, count=10, seed=0, epoch=0)


KNOWN = [1, 6, 3, 7, 8, 5, 0, 2, 9, 4]
