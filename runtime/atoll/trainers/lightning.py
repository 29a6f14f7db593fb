"""Lightning's Trainer as an island of a job.

    trainer = Trainer(max_steps=1000, callbacks=[AtollCallback(sync_every=50)])

Thread: the user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, RandomSampler

from atoll import errors
from atoll.trainers.rounds import Rounds

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from atoll.methods.method import OuterMethod


class AtollCallback(Callback):
    """Joins the job when training begins, steps an outer method after each optimizer step, stops
    the trainer when the job's last round is over, and leaves the module with the job's parameters.

    Each island shuffles by a seed of its own, where a loader shuffles without a generator. A
    LambdaLR that steps with the optimizer goes on where the job is, on an island that comes later.
    For modules with one optimizer.
    """

    def __init__(
        self,
        method: type[OuterMethod] | None = None,
        *,
        rounds: int | None = None,
        validation: str = "val_loss",
        settings: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        """method: atoll.DiLoCo when None; options: its own, `sync_every` above all.

        rounds: of the whole job; None: the trainer's steps divided by sync_every. validation: the
        metric that is reported as validation loss. settings: of `atoll.join`. Raises MisuseError.
        """
        self.rounds = Rounds(method, rounds=rounds, settings=settings, options=options)
        """Its `method` and `session` are those of the job while it trains."""
        self._validation = validation
        self._losses: list[torch.Tensor] = []
        self._steps = 0
        self._trains = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise errors.MisuseError(
                f"the module has {len(trainer.optimizers)} optimizers; an outer method takes one"
            )
        optimizer = getattr(trainer.optimizers[0], "optimizer", trainer.optimizers[0])
        self.rounds.begin(pl_module, optimizer, steps=trainer.estimated_stepping_batches)
        self._trains = True
        self._steps = trainer.global_step
        seed = self.rounds.seed(torch.initial_seed())
        for loader in _loaders(trainer.train_dataloader):
            sampler = loader.sampler
            if isinstance(sampler, RandomSampler) and sampler.generator is None:
                sampler.generator = torch.Generator().manual_seed(seed)
        for config in trainer.lr_scheduler_configs:
            if config.interval == "step" and config.frequency == 1:
                self.rounds.catch_up(config.scheduler)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):
            self._losses.append(loss.detach())
        if trainer.global_step == self._steps:  # a micro-batch of a step
            return
        self._steps = trainer.global_step
        if not self.rounds.step(self._loss(pl_module.automatic_optimization)):
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics.get(self._validation)
        if loss is not None and self._trains:
            self.rounds.report_validation(float(loss))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trains = False
        self.rounds.end(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._trains = False
        self.rounds.end(pl_module, exception)

    def _loss(self, are_parts: bool) -> torch.Tensor | None:
        """Of a step. are_parts: Lightning has divided each by how many there are."""
        if not self._losses:
            return None
        losses = torch.stack(self._losses)
        self._losses.clear()
        return losses.sum() if are_parts else losses.mean()


def _loaders(loaders: Any) -> Iterator[DataLoader[Any]]:
    """The loaders in what a module or its user gave: one, or some in lists and dictionaries."""
    match loaders:
        case DataLoader():
            yield loaders
        case Mapping():
            for one in loaders.values():
                yield from _loaders(one)
        case list() | tuple():
            for one in loaders:
                yield from _loaders(one)
