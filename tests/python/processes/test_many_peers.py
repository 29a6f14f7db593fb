"""Forty peers, each with a stream of its own to a real coordinator: bench/python/scale_grpc.py."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench/python"))

from scale_grpc import measure

pytestmark = pytest.mark.processes


def test_forty_peers_form_a_job_that_others_join_and_leave() -> None:
    found = asyncio.run(measure(40, repeats=2, idle_s=1.0, calm_s=0.2))
    assert found.formed_s > 0
    assert len(found.join_s) == len(found.loss_s) == 2
