"""Hugging Face's Trainer as an island of a job.

    trainer = Trainer(model, args, train_dataset=..., callbacks=[AtollCallback(sync_every=50)])

Thread: the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from accelerate.data_loader import SeedableRandomSampler
from transformers import TrainerCallback

from atoll.trainers.rounds import Rounds

if TYPE_CHECKING:
    import torch
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from atoll.methods.method import OuterMethod


class AtollCallback(TrainerCallback):
    """Joins the job when training begins, steps an outer method after each optimizer step, stops
    the trainer when the job's last round is over, and leaves the model with the job's parameters.

    Each island shuffles by a seed of its own, made from the trainer's, unless `data_seed` is given.
    The learning rate of an island that comes later goes on where the job's is (schedules of
    transformers, which are functions of the step).
    """

    def __init__(
        self,
        method: type[OuterMethod] | None = None,
        *,
        rounds: int | None = None,
        settings: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        """method: atoll.DiLoCo when None; options: its own, `sync_every` above all.

        rounds: of the whole job; None: the trainer's steps divided by sync_every. settings: of
        `atoll.join`. Raises MisuseError.
        """
        self.rounds = Rounds(method, rounds=rounds, settings=settings, options=options)
        """Its `method` and `session` are those of the job while it trains."""
        self._loss: torch.Tensor | None = None
        self._losses = 0
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        self.rounds.begin(model, inner, steps=state.max_steps)
        self._hook = model.register_forward_hook(self._forwarded, with_kwargs=True)
        if args.data_seed is None:
            _shuffle_by(kwargs["train_dataloader"], self.rounds.seed(args.seed))
        self.rounds.catch_up(kwargs["lr_scheduler"])

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        loss = None if self._loss is None else self._loss / max(1, self._losses)
        self._loss, self._losses = None, 0
        if not self.rounds.step(loss):
            control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        loss = kwargs["metrics"].get("eval_loss")
        if loss is not None and self._hook is not None:
            self.rounds.report_validation(loss)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self.rounds.end(kwargs["model"])

    def _forwarded(self, model: torch.nn.Module, _: Any, kwargs: Any, output: Any) -> None:
        """Notes the loss of a micro-batch: the trainer shows it to no callback."""
        loss = output.get("loss") if isinstance(output, dict) else None
        if loss is None or not model.training:
            return
        # With the number of a step's items, its micro-batches' losses are parts of a sum.
        self._losses += kwargs.get("num_items_in_batch") is None
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()


def _shuffle_by(loader: Any, seed: int) -> None:
    """Other orders than a shuffled one stay as they are."""
    find = getattr(loader, "get_sampler", None)
    sampler = None if find is None else find()
    if isinstance(sampler, SeedableRandomSampler):
        sampler.initial_seed = seed
