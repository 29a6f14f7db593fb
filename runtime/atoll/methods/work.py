"""What an island has trained: inner steps, samples and tokens, since when, and the mean loss.

Thread: the user's. Counting a step costs a few additions, whatever the model's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.errors import MisuseError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Work:
    """Counts since some moment."""

    steps: int = 0
    samples: int = 0
    tokens: int = 0

    def __sub__(self, before: Work) -> Work:
        return Work(
            self.steps - before.steps, self.samples - before.samples, self.tokens - before.tokens
        )


def seconds_of(every: object) -> float:
    """The seconds of "60s", "1.5m" or "2h". Raises MisuseError for anything else."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        if isinstance(every, str) and every[-1:] in units and 0 < float(every[:-1]) < math.inf:
            return float(every[:-1]) * units[every[-1]]
    except ValueError:
        pass
    raise MisuseError(f'every must be a time like "60s", "1.5m" or "2h", not {every!r}')


class Tally:
    """Counts since the island began, and the losses of the running round."""

    def __init__(self) -> None:
        self.steps = 0
        self._samples = 0
        self._tokens = 0
        self._losses = 0
        self._loss: torch.Tensor | float = 0.0

    def step(self, loss: torch.Tensor | float | None) -> None:
        """One inner step was made."""
        self.steps += 1
        if loss is not None:
            self._losses += 1
            # Still a tensor: reading it now would wait for an accelerator at every step.
            self._loss = self._loss + (loss.detach() if hasattr(loss, "detach") else loss)

    def drew(self, samples: int, tokens: int) -> None:
        """A batch was handed out."""
        self._samples += samples
        self._tokens += tokens

    @property
    def now(self) -> Work:
        return Work(self.steps, self._samples, self._tokens)

    def take_loss(self) -> torch.Tensor | float:
        """The mean of the losses since this was last called, still where it was computed; NaN:
        none were told."""
        mean = self._loss / self._losses if self._losses else math.nan
        self._loss, self._losses = 0.0, 0
        return mean
