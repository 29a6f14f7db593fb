"""The example with Accelerate, as a user runs it: two islands, and one that dies."""

from __future__ import annotations

from collections.abc import Callable

from trainer_job import EXAMPLES, Job, needs

from atoll.data.journal import audit, read

SCRIPT = EXAMPLES / "train_accelerate.py"

pytestmark = needs("accelerate")


def test_two_islands_end_with_equal_parameters(start: Callable[..., Job]) -> None:
    job = start(SCRIPT, "--rounds", "10", "--sync-every", "4")
    assert job.wait() == 0, job.log()
    first, second = job.ends("island-0"), job.ends("island-1")
    assert first == second
    assert [round_ for round_, _ in first] == [10]
    assert job.events("parity") == []
    losses = [event["loss"] for event in job.events("round") if event.get("loss") is not None]
    assert losses[-1] < losses[0]


def test_one_island_is_killed_and_the_other_trains_to_the_end(start: Callable[..., Job]) -> None:
    """Every sample is used once a pass."""
    job = start(SCRIPT, "--rounds", "100", options="--max-restarts 0")
    job.until_round(2)
    job.kill("island-1")
    job.wait()
    assert [round_ for round_, _ in job.ends("island-0")] == [100], job.log()
    assert job.ends("island-1") == []
    assert ["island-0"] in [event["members"] for event in job.events("view")]
    assert audit(read(job.folder), samples=4096, passes=1).problems == ()
