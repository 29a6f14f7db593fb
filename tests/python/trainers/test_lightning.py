"""The example with Lightning's own Trainer, as a user runs it: two islands, and one that dies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from trainer_job import EXAMPLES, Job, load, needs

SCRIPT = EXAMPLES / "train_lightning.py"

pytestmark = needs("lightning")


def test_two_islands_end_with_equal_parameters(start: Callable[..., Job]) -> None:
    """43 steps are 10 rounds of 4, and the trainer stops at the end of the last one."""
    job = start(SCRIPT, "--steps", "43", "--sync-every", "4", "--accumulate", "4")
    assert job.wait() == 0, job.log()
    first, second = job.ends("island-0"), job.ends("island-1")
    assert first == second
    assert [round_ for round_, _ in first] == [10]
    assert job.events("parity") == []
    losses = [event["loss"] for event in job.events("round") if event.get("loss") is not None]
    # The labels' mean square is 0.79: of a step, not of one of its quarters nor of all added up.
    assert 0.35 < losses[0] < 1.4
    assert losses[-1] < losses[0]


def test_one_island_is_killed_and_the_other_trains_to_the_end(start: Callable[..., Job]) -> None:
    """The 2,000 steps are several passes over the data, too."""
    job = start(SCRIPT, "--steps", "2000", "--sync-every", "20", options="--max-restarts 0")
    job.until_round(2)
    job.kill("island-1")
    job.wait()
    assert [round_ for round_, _ in job.ends("island-0")] == [100], job.log()
    assert job.ends("island-1") == []
    assert ["island-0"] in [event["members"] for event in job.events("view")]


def test_islands_shuffle_by_seeds_of_their_own() -> None:
    from lightning.pytorch import Trainer, seed_everything
    from torch.utils.data import DataLoader, TensorDataset

    from atoll.trainers.lightning import AtollCallback

    example = load(SCRIPT)
    seeds = []
    for island in ("a", "b", "a"):
        seed_everything(0, verbose=False)
        loader = DataLoader(TensorDataset(torch.rand(8, 2), torch.rand(8, 1)), shuffle=True)
        callback = AtollCallback(sync_every=2, settings={"island": island})
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(accelerator="cpu", max_steps=2, callbacks=[callback], **quiet)
        trainer.fit(example.Regression(), loader)
        assert callback.rounds.method.round == 1
        seeds.append(loader.sampler.generator.initial_seed())
    assert seeds[0] == seeds[2] != seeds[1]
