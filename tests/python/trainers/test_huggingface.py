"""The example with transformers' own Trainer, as a user runs it: two islands, and one that dies."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_job import EXAMPLES, Job, load, needs

SCRIPT = EXAMPLES / "train_hf.py"

pytestmark = needs("transformers", "accelerate")


def test_two_islands_end_with_equal_parameters(start: Callable[..., Job]) -> None:
    """43 steps are 10 rounds of 4, and the trainer stops at the end of the last one."""
    job = start(SCRIPT, "--steps", "43", "--sync-every", "4", "--accumulate", "2")
    assert job.wait() == 0, job.log()
    first, second = job.ends("island-0"), job.ends("island-1")
    assert first == second
    assert [round_ for round_, _ in first] == [10]
    assert job.events("parity") == []
    losses = [event["loss"] for event in job.events("round") if event.get("loss") is not None]
    assert 3 < losses[0] < 5  # log 64 = 4.2: of a step, be it in halves or not
    assert losses[-1] < losses[0]
    # Each island shuffles for itself, so what they trained on, and what they lost, differs.
    texts = [(job.folder / f"island-{number}.log").read_text() for number in range(2)]
    grads = [re.findall(r"'grad_norm': '([\d.e-]+)'", text) for text in texts]
    assert grads[0] != grads[1]
    assert len(grads[0]) == len(grads[1]) == 10


def test_one_island_is_killed_and_the_other_trains_to_the_end(start: Callable[..., Job]) -> None:
    job = start(SCRIPT, "--steps", "120", "--sync-every", "4", options="--max-restarts 0")
    job.until_round(2)
    job.kill("island-1")
    job.wait()
    assert [round_ for round_, _ in job.ends("island-0")] == [30], job.log()
    assert job.ends("island-1") == []
    assert ["island-0"] in [event["members"] for event in job.events("view")]


def test_a_checkpoint_is_exported_and_loaded(
    start: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder that `atoll export` writes is a model to transformers, with the job's bits."""
    from atoll_launcher.main import main

    example = load(SCRIPT)
    run, base, to = (str(tmp_path / name) for name in ("run", "base", "to"))
    job = start(SCRIPT, "--steps", "12", "--sync-every", "4", ATOLL_CHECKPOINT_URL=run)
    fresh = example.make_model()
    fresh.save_pretrained(base)
    assert job.wait() == 0, job.log()
    assert main(["export", run, "--to", to, "--model", base]) == 0, capsys.readouterr()
    loaded = example.LlamaForCausalLM.from_pretrained(to)
    assert [(3, example.digest_of(loaded))] == job.ends("island-0")
    assert example.digest_of(loaded) != example.digest_of(fresh)


def test_a_schedule_goes_on_where_the_job_is(tmp_path: Path) -> None:
    """The second run finds the job after 2 of 4 rounds, in its checkpoint."""
    from transformers import Trainer, TrainingArguments

    from atoll.trainers.huggingface import AtollCallback

    example = load(SCRIPT)
    rates = []
    for steps in (8, 16):
        settings = {"checkpoint_url": str(tmp_path / "run"), "checkpoint_every": 1}
        args = TrainingArguments(
            **{"output_dir": str(tmp_path), "max_steps": steps, "learning_rate": 1.0},
            **{"logging_steps": 1, "save_strategy": "no", "report_to": "none"},
            **{"per_device_train_batch_size": 2, "use_cpu": True, "disable_tqdm": True},
            max_grad_norm=1e-9,  # so that such a rate does no harm
        )
        callback = AtollCallback(sync_every=4, settings=settings)
        model, data = example.make_model(), example.Counting()
        trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])
        trainer.train()
        assert callback.rounds.method.round == steps // 4
        rates.append([log["learning_rate"] for log in trainer.state.log_history[:-1]])
    assert rates[0] == pytest.approx([(8 - step) / 8 for step in range(8)])
    assert rates[1] == pytest.approx([(16 - step) / 16 for step in range(8, 16)])
