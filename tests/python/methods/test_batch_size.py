"""The norm test against sample variances in NumPy."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atoll.methods.batch_size import next_batch_size, variance_l1


@given(st.integers(2, 8), st.integers(0, 1000), st.integers(1, 64))
def test_the_variance_is_that_of_the_members_gradients(
    members: int, seed: int, samples: int
) -> None:
    rows = np.random.default_rng(seed).standard_normal((members, 40)) + 1
    mean = rows.mean(axis=0)
    found = variance_l1(
        float((rows**2).sum()), float((mean**2).sum()), members=members, samples=samples
    )
    wanted = samples * np.abs(rows.var(axis=0, ddof=1)).sum()
    assert math.isclose(found, wanted, rel_tol=1e-9)


def test_means_of_samples_estimate_one_samples_variance() -> None:
    random = np.random.default_rng(5)
    single = random.standard_normal((400, 16, 30)) * 3  # 400 members of 16 samples
    rows = single.mean(axis=1)
    found = variance_l1(
        float((rows**2).sum()),
        float((rows.mean(axis=0) ** 2).sum()),
        members=400,
        samples=16,
    )
    assert math.isclose(found, 30 * 9, rel_tol=0.05)


def test_the_batch_is_the_smallest_that_passes() -> None:
    common = {"squared_norm": 4.0, "eta": 0.5, "cap": 1000}
    assert next_batch_size(8, variance_l1=100.5, **common) == 101  # type: ignore[arg-type]
    assert next_batch_size(8, variance_l1=100.0, **common) == 100  # type: ignore[arg-type]
    for b, passes in ((100, False), (101, True)):
        assert (100.5 / b <= 0.25 * 4.0) is passes


def test_it_never_shrinks_and_stops_at_the_cap() -> None:
    assert next_batch_size(64, variance_l1=1.0, squared_norm=1.0, eta=1.0, cap=128) == 64
    assert next_batch_size(64, variance_l1=1e9, squared_norm=1.0, eta=1.0, cap=128) == 128
    assert next_batch_size(64, variance_l1=1.0, squared_norm=0.0, eta=1.0, cap=128) == 128
    assert next_batch_size(64, variance_l1=1e308, squared_norm=1e-300, eta=1.0, cap=128) == 128


def test_one_member_alone_knows_no_variance() -> None:
    assert variance_l1(4.0, 4.0, members=1, samples=8) == 0.0
    assert variance_l1(3.9, 2.0, members=2, samples=8) == 0.0  # rounding below zero
