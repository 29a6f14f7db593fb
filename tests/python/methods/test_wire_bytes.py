"""Bytes at the sockets of real islands, beside the formulas."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from churn import Job, Model

import atoll

pytestmark = pytest.mark.processes

ROUNDS = 6
LAST = ROUNDS - 2
FIRST = 1
"""Counted between the ends of these rounds, while everybody is there."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("DiLoCo", {}),
    "ring": ("DiLoCo", {"plan": "ring"}),
    "int8": ("DiLoCo", {"codec": "int8"}),
    "two_bit with feedback": ("DiLoCo", {"codec": "two_bit", "error_feedback": True}),
    "ef21": ("DiLoCo", {"codec": "int8", "error_feedback": "ef21"}),
    "a codec for each layer": ("DiLoCo", {"codec": "int8", "allocation": 10}),
    "streaming fp4": ("StreamingDiLoCo", {"fragments": 3, "overlap": 0}),
    "local sgd": ("LocalSGD", {}),
    "sparse": ("SparseLoCo", {}),
    "noloco": ("NoLoCo", {}),
}


@pytest.mark.parametrize("name", METHODS)
def test_bytes_are_the_formulas(name: str) -> None:
    """Within 2 %: the headers. (Heartbeats count, too: what sends little has a larger model.)"""
    kind, options = METHODS[name]
    width = 768 if name == "sparse" else 384
    islands = 2 if kind == "NoLoCo" else 3

    def make(session: Any, model: Any, inner: Any) -> Any:
        return getattr(atoll, kind)(session, model, inner, sync_every=4, **options)

    job = Job(
        make,
        rounds=ROUNDS,
        founders=islands,
        model=partial(Model, width),
        settings={"shared_memory": False, "probe": False},
    )
    with job:
        job.wait()
        for island in job.islands:
            sent = (island.sent[LAST] - island.sent[FIRST]) / (LAST - FIRST)
            assert island.method is not None
            assert sent == pytest.approx(island.method.bytes_per_round(islands), rel=0.02)
