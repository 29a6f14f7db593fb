"""Every cell of the published table, within one point of the grid that it is given in."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from published_table import FITTED_BITS, JOBS, PUBLISHED, TARGETS, choice_of

from atoll.planning.network import uniform
from atoll.planning.predict import GRID_GBIT, needed_gbit


def point(gbit: float) -> int:
    """The grid's point that was rounded to this."""
    return int(np.abs(np.log(GRID_GBIT / gbit)).argmin())


def differences(
    bits: float, rows: Collection[tuple[str, str]] = tuple(PUBLISHED)
) -> dict[tuple[str, str, float], int]:
    """By cell: predicted minus published, in points of the grid."""
    found = {}
    for size, row in rows:
        published = PUBLISHED[size, row]
        job, step_s = JOBS[size]
        network = uniform(2, 1.0, 0.0, step_s)
        for target, gbit in zip(TARGETS, published, strict=True):
            predicted = needed_gbit(job, choice_of(row, bits), network, target)
            found[size, row, target] = point(predicted) - point(gbit)
    return found


def test_published_rates_are_points_of_the_grid() -> None:
    for published in PUBLISHED.values():
        for gbit in published:
            assert abs(float(GRID_GBIT[point(gbit)]) - gbit) < 0.1


def test_every_cell_of_the_published_table_is_within_one_grid_point() -> None:
    found = differences(FITTED_BITS)
    assert len(found) == 50
    wrong = {cell: off for cell, off in found.items() if abs(off) > 1}
    assert not wrong
    # As docs/planning.md says.
    assert sum(off == 0 for off in found.values()) == 46


@pytest.mark.parametrize("bits", [11.0, 18.0])
def test_the_table_tells_widths_apart(bits: float) -> None:
    found = differences(bits, rows=[("10B", "streaming"), ("10B", "streaming, overlapped")])
    assert max(abs(off) for off in found.values()) > 1
