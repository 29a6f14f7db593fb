"""From Streaming DiLoCo (arXiv 2501.18512): Gbit/s needed for a compute utilization."""

from __future__ import annotations

from atoll.planning.job import Choice, Job

TARGETS = (0.5, 0.8, 0.9, 0.95, 0.99)
FITTED_BITS = 13.4
"""Bits of a parameter on the link, by which the table fits best; docs/planning.md."""
JOBS = {
    "1B": (Job(params=10**9, layers=24), 0.1),
    "10B": (Job(params=10**10, layers=48), 0.8),
}
PUBLISHED = {
    ("1B", "data-parallel"): (86.8, 152.6, 184.2, 222.3, 569.0),
    ("1B", "diloco"): (1.4, 6.2, 13.3, 23.3, 86.8),
    ("1B", "streaming"): (1.4, 5.2, 9.1, 16.0, 28.1),
    ("1B", "streaming, overlapped"): (1.4, 4.3, 6.2, 9.1, 11.0),
    ("1B", "streaming, overlapped, fp4"): (0.4, 0.9, 1.7, 2.0, 3.0),
    ("10B", "data-parallel"): (104.8, 222.3, 222.3, 268.3, 471.5),
    ("10B", "diloco"): (1.7, 7.5, 16.0, 33.9, 104.8),
    ("10B", "streaming"): (1.7, 5.2, 9.1, 13.3, 19.3),
    ("10B", "streaming, overlapped"): (1.7, 3.6, 5.2, 6.2, 7.5),
    ("10B", "streaming, overlapped, fp4"): (0.4, 0.9, 1.4, 1.4, 1.7),
}


def choice_of(row: str, bits: float) -> Choice:
    """How the method of a row exchanges."""
    method, *more = row.split(", ")
    return Choice(
        method=method,
        every=1 if method == "data-parallel" else 100,
        overlap=1 if "overlapped" in more else 0,
        fragment_layers=3,
        bits=bits / 4 if "fp4" in more else bits,
        by_layer=True,
    )
