"""The example of elastic islands: any layout of it and the oracle have the same losses."""

import argparse

import elastic_gpt
import pytest
import torch

from atoll.elastic.local import LocalIsland
from atoll.elastic.oracle import Oracle
from atoll.elastic.task import Task
from atoll.elastic.transition import first_layout

pytestmark = pytest.mark.training


def test_two_stages_have_the_oracles_losses() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    config = elastic_gpt.Config(layers=1, block=16, width=32)
    task = Task(
        seed=elastic_gpt.SEED,
        micro_batches=3,
        vshards=2,
        layers=elastic_gpt.make_layers(config, 0.1),
        batch=elastic_gpt.make_batch(config, 2),
        loss=elastic_gpt.loss,
        tokens=3 * 2 * config.block,
    )
    oracle = Oracle(task)
    island = LocalIsland(task, first_layout(task.spine(), ["a", "b", "c"], pipeline=2))
    losses = [(island.train_step(), oracle.train_step()) for _ in range(3)]
    torch.set_num_threads(before)
    assert all(ours == theirs for ours, theirs in losses)
    assert losses[0][0] == pytest.approx(5.55, abs=0.5)  # log 256


def test_its_options_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["elastic_gpt.py", "--steps", "3"])
    assert isinstance(elastic_gpt.arguments(), argparse.Namespace)
    assert elastic_gpt.arguments().steps == 3
