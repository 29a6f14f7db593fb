"""What the trainers' callbacks share: a job is joined when training begins and left at its end.

A trainer draws its own batches, so there is no ledger of samples here: each island shuffles by a
seed of its own. Thread: the user's.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import atoll
from atoll import errors
from atoll.leaving import Parting
from atoll.methods.layout import local_of

if TYPE_CHECKING:
    import torch

    from atoll.methods.method import OuterMethod
    from atoll.session import Session


class Rounds:
    """An outer method in a loop that is somebody else's: `begin`, `step` by `step`, `end`."""

    def __init__(
        self,
        method: type[OuterMethod] | None,
        *,
        rounds: int | None,
        settings: Mapping[str, object] | None,
        options: Mapping[str, Any],
    ) -> None:
        """method: DiLoCo when None; options: its own. rounds: of the whole job; None: as many as
        the trainer's steps make. settings: of `atoll.join`. Raises MisuseError."""
        if rounds is not None and rounds < 1:
            raise errors.MisuseError(f"rounds must be at least 1, not {rounds}")
        self._kind = atoll.DiLoCo if method is None else method
        self._rounds = rounds
        self._settings = settings
        self._options = dict(options)
        self._method: OuterMethod | None = None
        self._session: Session | None = None
        self._parting: Parting | None = None
        self._last = 0

    @property
    def method(self) -> OuterMethod:
        """Raises MisuseError before training has begun."""
        if self._method is None:
            raise errors.MisuseError("training has not begun: there is no outer method yet")
        return self._method

    @property
    def session(self) -> Session:
        """Raises MisuseError before training has begun, and after its end."""
        if self._session is None:
            raise errors.MisuseError("no training is going on: there is no session")
        return self._session

    @property
    def over(self) -> bool:
        """Whether the job's last round is over, or this island is to leave after the last one."""
        parted = self._parting is not None and self._parting.decided
        return self.method.round >= self._last or parted

    @property
    def steps_done(self) -> int:
        """Inner steps that the job's rounds have taken: those of each island, not of all."""
        return self.method.round * self.method.sync_every

    def begin(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, steps: float
    ) -> None:
        """Joins the job; the model then holds the job's parameters.

        steps: optimizer steps that the trainer is to take; infinite or less than 1: without end.
        Raises MisuseError when these are less than a round and `rounds` is not given, and what
        `atoll.join` and the method raise.
        """
        session = self._session = atoll.join(self._settings)
        self._parting = Parting(lambda: session.leaving, session.shards)
        try:
            self._method = self._kind(self._session, model, optimizer, **self._options)
            self._last = self._rounds or self._rounds_of(steps, self._method.sync_every)
        except BaseException as error:
            self._session = None
            session.__exit__(type(error), error, None)
            raise

    def seed(self, base: int) -> int:
        """For the order of this island's data: another one for each island and first round."""
        text = f"{base} {self.session.island} {self.session.shard} {self.method.round}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    def catch_up(self, schedule: object) -> None:
        """A schedule that is a function of the step goes on where the job is; others stay."""
        from torch.optim.lr_scheduler import LambdaLR

        if isinstance(schedule, LambdaLR) and self.steps_done:
            schedule.last_epoch = self.steps_done - 1
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected call of")  # that no step was taken yet
                schedule.step()

    def step(self, loss: torch.Tensor | None) -> bool:
        """After each optimizer step; loss: a scalar. Returns whether training goes on.

        Raises what `OuterMethod.step` does.
        """
        if self.over:  # the trainer takes no notice of its end
            return False
        self.method.step(loss)
        if self.method.just_synced and self._parting is not None:
            self._parting()
        return not self.over

    def report_validation(self, loss: float) -> None:
        """The first island tells the coordinator: the others' models are the same after a round."""
        if self.session.rank == 0:
            self.session.report(validation_loss=loss)

    def end(self, model: torch.nn.Module, error: BaseException | None = None) -> None:
        """Leaves the job; without an error the model holds the shared parameters. Idempotent."""
        if self._session is None:
            return
        session, self._session = self._session, None
        try:
            if error is None and self._method is not None:
                self._method.finish()
                _load(model, self._method.named_outer_parameters())
        finally:
            session.__exit__(None if error is None else type(error), error, None)

    @staticmethod
    def _rounds_of(steps: float, sync_every: int) -> int:
        if steps < 1 or math.isinf(steps):
            raise errors.MisuseError(
                "the trainer has no end of its own: give it a number of steps, or give rounds"
            )
        if steps < sync_every:
            raise errors.MisuseError(
                f"the trainer's {steps:g} steps are less than a round of {sync_every}: lower "
                "sync_every, or give rounds"
            )
        return int(steps) // sync_every


def _load(model: torch.nn.Module, shared: Mapping[str, torch.Tensor]) -> None:
    """shared: by name, on the host; of a parameter that is sharded this process's part."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in shared:
                local_of(parameter).copy_(shared[name])
