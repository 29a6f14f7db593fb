"""L-GreCo against trying everything."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import MisuseError
from atoll.methods.allocation import allocate, bucketed, budget, compression_error

Table = tuple[list[list[float]], list[list[int]]]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    choices = draw(st.integers(1, 4))
    layers = draw(st.integers(1, 4))
    errors = [[draw(st.floats(0.0, 10.0)) for _ in range(choices)] for _ in range(layers)]
    sizes = [[draw(st.integers(1, 1000)) for _ in range(choices)] for _ in range(layers)]
    return errors, sizes


def best_by_trying(table: Table, total: float, buckets: int) -> int | None:
    errors, sizes = table

    def used(error: float) -> int:
        if error > total:
            return buckets + 1
        return max(1, math.ceil(error / total * buckets)) if total else 1

    found = None
    for choice in itertools.product(*(range(len(row)) for row in errors)):
        size = sum(row[c] for row, c in zip(sizes, choice, strict=True))
        if sum(used(row[c]) for row, c in zip(errors, choice, strict=True)) <= buckets:
            found = size if found is None else min(found, size)
    return found


@given(tables(), st.sampled_from([7, 50, 10_000]))
def test_nothing_smaller_fits_the_budget(table: Table, buckets: int) -> None:
    errors, sizes = table
    reference = [0] * len(errors)
    total = budget([row[0] for row in errors])
    choice = allocate(errors, sizes, total_error=total, reference=reference, buckets=buckets)
    size = sum(row[c] for row, c in zip(sizes, choice, strict=True))
    reference_size = sum(row[0] for row in sizes)
    best = best_by_trying(table, total, buckets)
    assert size == min(reference_size, reference_size if best is None else best)
    error = math.fsum(row[c] for row, c in zip(errors, choice, strict=True))
    assert error <= total * (1 + 1e-9)
    again = allocate(errors, sizes, total_error=total, reference=reference, buckets=buckets)
    assert again == choice


def test_a_small_table_by_hand() -> None:
    """Layer 0 is large and smooth, layer 1 small and rough: fewer bits for the first."""
    errors = [[4.0, 2.0, 1.0], [8.0, 4.0, 2.0]]
    sizes = [[200, 400, 800], [2, 4, 8]]
    choice = allocate(errors, sizes, total_error=6.01, reference=[1, 1])
    assert choice == (0, 2)


def test_errors_are_rounded_up_and_take_a_bucket_at_least() -> None:
    assert bucketed(0.0, 1.0) == 1
    assert bucketed(0.00015, 1.0) == 2
    assert bucketed(1.0, 1.0) == 10_000
    assert bucketed(0.0, 0.0) == 1
    assert bucketed(1e-300, 0.0) == 10_001
    assert bucketed(1e300, 1e-300) == 10_001


def test_the_error_is_the_norm_and_not_its_square() -> None:
    assert compression_error(torch.tensor([3.0, 4.0, 9.0]), lambda x: x * (x > 5)) == 5.0
    assert budget([1.0, 2.0], alpha=0.5) == 1.5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(MisuseError, match="one row a layer"):
        allocate([[1.0]], [[1], [2]], total_error=1.0, reference=[0])
    with pytest.raises(MisuseError, match="finite numbers"):
        allocate([[math.nan]], [[1]], total_error=1.0, reference=[0])
    with pytest.raises(MisuseError, match=r"add up to 2, more than the budget 1"):
        allocate([[2.0]], [[1]], total_error=1.0, reference=[0])
    with pytest.raises(MisuseError, match="2 reference settings for 1 layers"):
        allocate([[2.0]], [[1]], total_error=2.0, reference=[0, 0])
