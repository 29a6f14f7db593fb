"""What the hook of torchtitan does to a trainer, with one that has the shape of torchtitan's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

import atoll
from atoll.errors import MisuseError
from atoll.trainers.torchtitan import on_island

pytestmark = pytest.mark.training


class Trainer:
    """Trains a number towards 0. As torchtitan's, it counts a step before it takes it."""

    def __init__(self, config: Any) -> None:
        self.job_config = config
        self.parallel_dims = SimpleNamespace(get_optional_mesh=lambda name: None)
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, 8.0)
        self.model_parts = [model]
        self.optimizers = [torch.optim.SGD(model.parameters(), lr=1.0)]
        self.lr_schedulers = [LambdaLR(self.optimizers[0], lambda step: 0.5 / (1 + step))]
        self.step = 0
        self.rates: list[float] = []

    def train(self) -> None:
        while self.should_continue_training():
            self.step += 1
            self.train_step(iter(()))

    def should_continue_training(self) -> bool:
        return self.step < self.job_config.training.steps

    def train_step(self, data_iterator: Any) -> None:
        self.optimizers[0].zero_grad()
        for _ in range(2):
            self.forward_backward_step(input_dict={}, labels=None)
        self.rates.append(self.lr_schedulers[0].get_last_lr()[0])
        self.optimizers[0].step()
        self.lr_schedulers[0].step()

    def forward_backward_step(self, *, input_dict: Any, labels: Any) -> torch.Tensor:
        loss = self.model_parts[0].weight.square().sum() / 4
        loss.backward()
        return loss


def config_of(steps: int) -> Any:
    return SimpleNamespace(training=SimpleNamespace(steps=steps))


def test_it_steps_an_outer_method_and_ends_with_the_last_round() -> None:
    made = on_island(Trainer, sync_every=4, outer_lr=0.5, outer_momentum=0.0)
    assert issubclass(made, Trainer)
    assert made.__name__ == "Trainer"
    trainer = made(config_of(11))
    with pytest.raises(MisuseError, match="training has not begun"):
        _ = trainer.rounds.method
    losses = []
    step = trainer.rounds.step
    trainer.rounds.step = lambda loss: losses.append(float(loss)) or step(loss)
    trainer.train()
    assert trainer.step == 8
    assert trainer.rounds.method.round == 2
    assert losses[0] == 32.0  # the sum of two parts of 64 / 4
    shared = trainer.rounds.method.named_outer_parameters()["weight"]
    assert torch.equal(trainer.model_parts[0].weight, shared)
    with pytest.raises(MisuseError, match="no training is going on"):
        _ = trainer.rounds.session


def test_a_schedule_goes_on_where_the_job_is(tmp_path: Any) -> None:
    """The second run finds the job after 2 of 4 rounds, in its checkpoint."""
    settings = {"checkpoint_url": str(tmp_path / "run"), "checkpoint_every": 1}
    rates = []
    for steps in (8, 16):
        trainer = on_island(Trainer, sync_every=4, settings=settings)(config_of(steps))
        trainer.train()
        assert trainer.rounds.method.round == steps // 4
        rates += trainer.rates
    assert rates == pytest.approx([0.5 / (1 + step) for step in range(16)])


def test_what_fails_leaves_the_job() -> None:
    class Broken(Trainer):
        def train_step(self, data_iterator: Any) -> None:
            raise ValueError("no data")

    trainer = on_island(Broken, atoll.LocalSGD, sync_every=4)(config_of(8))
    with pytest.raises(ValueError, match="no data"):
        trainer.train()
    with pytest.raises(MisuseError, match="no training is going on"):
        _ = trainer.rounds.session


def test_what_is_refused() -> None:
    with pytest.raises(MisuseError, match="at least 1"):
        on_island(Trainer, rounds=0, sync_every=4)
    trainer = on_island(Trainer, sync_every=4)(config_of(8))
    trainer.model_parts *= 2
    with pytest.raises(MisuseError, match="2 parts and 1 optimizers"):
        trainer.train()
    with pytest.raises(MisuseError, match="less than a round"):
        on_island(Trainer, sync_every=4)(config_of(3)).train()
