"""torchtitan's Trainer as an island of a job.

    from torchtitan.train import Trainer, main

    main(on_island(Trainer, sync_every=50))

Nothing of torchtitan is imported here: the trainer's class is the caller's. Thread: the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atoll import errors
from atoll.trainers.rounds import Rounds

if TYPE_CHECKING:
    import torch

    from atoll.methods.method import OuterMethod


def on_island(
    trainer: type[Any],
    method: type[OuterMethod] | None = None,
    *,
    rounds: int | None = None,
    settings: Mapping[str, object] | None = None,
    **options: Any,
) -> type[Any]:
    """A trainer that joins the job when training begins, steps an outer method after each step of
    the optimizer, ends with the job's last round, and leaves the model with the job's parameters.

    trainer: torchtitan's Trainer or a class made from it; what is returned is made and used as it
    is. Of its instances `rounds.method` and `rounds.session` are those of the job while they train.
    method: atoll.DiLoCo when None; options: its own, `sync_every` above all. rounds: of the whole
    job; None: the trainer's steps divided by sync_every. settings: of `atoll.join`.

    For models of one part with one optimizer: no pipeline, no optimizer steps in backward. The
    learning rate of an island that comes later goes on where the job's is. Every island should read
    other data, which is the data set's business.

    Raises MisuseError.
    """
    Rounds(method, rounds=rounds, settings=settings, options=options)  # refuses what cannot be

    class IslandTrainer(_OnIsland, trainer):
        def __init__(self, *inputs: Any, **named: Any) -> None:
            self.rounds = Rounds(method, rounds=rounds, settings=settings, options=options)
            self._losses: list[torch.Tensor] = []
            self._begun = False
            super().__init__(*inputs, **named)

    IslandTrainer.__name__ = IslandTrainer.__qualname__ = trainer.__name__
    return IslandTrainer


class _OnIsland:
    """What comes before a trainer's own methods. Its names are torchtitan's, of 0.2 and later."""

    rounds: Rounds
    model_parts: list[torch.nn.Module]
    optimizers: Any
    lr_schedulers: Any
    parallel_dims: Any
    step: int
    _losses: list[torch.Tensor]
    _begun: bool

    def train(self) -> None:
        trainer: Any = super()
        try:
            trainer.train()
        except BaseException as error:
            self.rounds.end(self.model_parts[0], error)
            raise
        self.rounds.end(self.model_parts[0])

    def should_continue_training(self) -> bool:
        """Asked before every step; the first time all is set up, and a checkpoint is loaded."""
        trainer: Any = super()
        if not self._begun:
            self._begin()
            self._begun = True
        return bool(trainer.should_continue_training()) and not self.rounds.over

    def forward_backward_step(self, *inputs: Any, **named: Any) -> Any:
        trainer: Any = super()
        loss = trainer.forward_backward_step(*inputs, **named)
        self._losses.append(loss.detach().clone())  # a CUDA graph uses its memory again
        return loss

    def train_step(self, *inputs: Any, **named: Any) -> None:
        trainer: Any = super()
        self._losses.clear()
        trainer.train_step(*inputs, **named)
        # Each is this process's part of the island's mean, and so is their sum.
        loss = sum(self._losses[1:], self._losses[0]) * self._processes_with_data
        self.rounds.step(loss)

    def _begin(self) -> None:
        inners = list(self.optimizers)
        if len(self.model_parts) != 1 or len(inners) != 1:
            raise errors.MisuseError(
                f"the model has {len(self.model_parts)} parts and {len(inners)} optimizers; an "
                "outer method takes one of each: leave out pipeline_parallel_degree and "
                "early_step_in_backward"
            )
        steps = self._settings_of_training.steps - self.step
        self.rounds.begin(self.model_parts[0], inners[0], steps=steps)
        for schedule in self.lr_schedulers:
            self.rounds.catch_up(schedule)

    @property
    def _settings_of_training(self) -> Any:
        own: Any = self
        return (own.job_config if hasattr(own, "job_config") else own.config).training

    @property
    def _processes_with_data(self) -> int:
        mesh = self.parallel_dims.get_optional_mesh("loss")
        return 1 if mesh is None else int(mesh.size())
