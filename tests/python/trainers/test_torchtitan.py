"""The example with torchtitan's own Trainer, as a user runs it: two islands, and one that dies.

Its trainer needs an accelerator, which both islands share.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from trainer_job import EXAMPLES, Job, needs

SCRIPT = EXAMPLES / "train_torchtitan.py"

pytestmark = [
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason="torchtitan's trainer needs an accelerator, and there is none: NOT TESTED HERE",
    ),
    *needs("torchtitan", "torchdata"),
]


def test_two_islands_end_with_equal_parameters(start: Callable[..., Job]) -> None:
    """43 steps are 10 rounds of 4, and the trainer stops at the end of the last one."""
    job = start(SCRIPT, "--steps", "43", "--sync-every", "4", "--accumulate", "2")
    assert job.wait() == 0, job.log()
    first, second = job.ends("island-0"), job.ends("island-1")
    assert first == second
    assert [round_ for round_, _ in first] == [10], job.log()
    assert job.events("parity") == []
    losses = [event["loss"] for event in job.events("round") if event.get("loss") is not None]
    assert 3 < losses[0] < 5  # log 64 = 4.2: of a step, be it in halves or not
    assert losses[-1] < losses[0]


def test_one_island_is_killed_and_the_other_trains_to_the_end(start: Callable[..., Job]) -> None:
    job = start(SCRIPT, "--steps", "800", "--sync-every", "4", options="--max-restarts 0")
    job.until_round(2)
    job.kill("island-1")
    job.wait()
    assert [round_ for round_, _ in job.ends("island-0")] == [200], job.log()
    assert job.ends("island-1") == []
    assert ["island-0"] in [event["members"] for event in job.events("view")]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two accelerators")
def test_islands_of_two_processes_which_fsdp_joins(start: Callable[..., Job]) -> None:
    job = start(
        SCRIPT, "--steps", "43", "--sync-every", "4", options="--nproc-per-node 2 --min-islands 2"
    )
    assert job.wait() == 0, job.log()
    first, second = job.ends("island-0.0"), job.ends("island-1.0")
    assert first == second
    assert [round_ for round_, _ in first] == [10], job.log()
    assert job.events("parity") == []
    losses = [event["loss"] for event in job.events("round") if event.get("loss") is not None]
    assert 3 < losses[0] < 5
