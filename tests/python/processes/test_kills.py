"""Real islands, real SIGKILL, in the middle of transfers: nothing lost, doubled or hung."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kill_rounds import Options, run


@pytest.mark.processes
@pytest.mark.timeout(240)
@pytest.mark.parametrize("plan", ["direct", "ring"])
def test_islands_are_killed_at_random(tmp_path: Path, plan: str) -> None:
    options = Options(
        islands=3, kills=3, seed=11, elements=2_000_000, samples=3_000, pause_s=0.5, plan=plan
    )
    outcome = run(options, tmp_path)
    assert outcome.problems == [], (tmp_path / "launcher.log").read_text()[-4000:]
    assert outcome.recoveries_s


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_islands_that_exchange_in_the_background_are_killed_at_random(tmp_path: Path) -> None:
    options = Options(
        islands=3,
        kills=3,
        seed=5,
        elements=2_000_000,
        samples=3_000,
        pause_s=0.5,
        method="streaming",
    )
    outcome = run(options, tmp_path)
    assert outcome.problems == [], (tmp_path / "launcher.log").read_text()[-4000:]
    assert outcome.recoveries_s


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("method", ["diloco", "delayed", "streaming", "sparse"])
def test_islands_whose_models_are_on_an_accelerator_are_killed_at_random(
    tmp_path: Path, method: str
) -> None:
    options = Options(
        islands=3,
        kills=2,
        seed=7,
        elements=2_000_000,
        samples=6_000,
        pause_s=0.5,
        method=method,
        device="cuda",
    )
    outcome = run(options, tmp_path)
    assert outcome.problems == [], (tmp_path / "launcher.log").read_text()[-4000:]
    assert outcome.recoveries_s
