"""Batch sizes that grow as gradients become noisy: the norm test of AdAdaGrad (arXiv 2402.11215).

The inputs are reduced in the round's own exchange, so the decision is the same on all members and
commits with the round; a new size holds from the next round on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.errors import MisuseError

if TYPE_CHECKING:
    import torch

_COLUMNS = 1 << 14
"""Partial sums: few enough to add exactly, enough for a row to be worth a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveBatchSize:
    """Lets `Session.batches` give larger batches when the norm test asks for them.

    A round's Delta stands for the gradient, and the samples that an island trained on in the round
    for its batch: between islands it varies by ||Var_i||_1 / samples.

    eta: the tolerated ratio of noise and gradient (above 0; the paper takes 0.1 to 0.9). cap:
    samples of a batch, at most. every: rounds between two tests. The size is part of the data
    position that all members share: a joiner and a checkpoint have it, a lost member takes nothing
    of it along. Members without a part in the round are not counted in the test; with fewer than
    two there is none. Bytes: 4 or 8 a round more.
    """

    cap: int
    eta: float = 0.5
    every: int = 1

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise MisuseError(f"cap must be at least 1 sample, not {self.cap}")
        if not (math.isfinite(self.eta) and self.eta > 0):
            raise MisuseError(f"eta must be above 0, not {self.eta}")
        if self.every < 1:
            raise MisuseError(f"every must be at least 1 round, not {self.every}")

    def is_due(self, round_: int) -> bool:
        """Whether the round, counted from 0, ends with a test."""
        return (round_ + 1) % self.every == 0

    def after(
        self, batch: int, *, mean_square: float, squared_norm: float, members: int, samples: int
    ) -> int:
        """The next size in samples. mean_square: mean over the members of ||Delta_m||^2, each of
        `samples` samples; squared_norm: of the mean Delta."""
        if members < 2 or not (math.isfinite(mean_square) and math.isfinite(squared_norm)):
            return batch
        variance = variance_l1(
            members * mean_square, squared_norm, members=members, samples=max(1, samples)
        )
        size = next_batch_size(
            batch, variance_l1=variance, squared_norm=squared_norm, eta=self.eta, cap=self.cap
        )
        return max(batch, size)


def squared_norm(x: torch.Tensor) -> float:
    """||x||^2 of [n] fp32, with the same bits on every processor: products and column sums in
    double, in order, none of them fused, and the columns' sum exact."""
    import torch

    columns = torch.zeros(min(_COLUMNS, x.numel()), dtype=torch.float64, device=x.device)
    for begin in range(0, x.numel(), _COLUMNS):
        row = x[begin : begin + _COLUMNS].double()
        columns[: row.numel()].add_(row.mul_(row))
    return math.fsum(columns.tolist())


def variance_l1(
    squared_norms: float, mean_squared_norm: float, *, members: int, samples: int
) -> float:
    """||Var_i g_i||_1 of one sample's gradient, from the members' mean gradients.

    squared_norms: sum over the members of ||g_m||^2, each the mean of `samples` samples;
    mean_squared_norm: ||g||^2 of their mean. sum ||g_m - g||^2 / (M - 1) estimates the variance of
    g_m, which is that of one sample divided by `samples`. One member alone: 0.
    """
    if members < 2:
        return 0.0
    between = max(0.0, squared_norms - members * mean_squared_norm) / (members - 1)
    return samples * between


def next_batch_size(
    batch: int, *, variance_l1: float, squared_norm: float, eta: float, cap: int
) -> int:
    """b <- max(b, ceil(||Var_i g_i||_1 / (eta^2 ||g||^2))), in samples, at most `cap`.

    The smallest batch that passes the norm test ||Var||_1 / b <= eta^2 ||g||^2; it never shrinks
    (unless cap is below b). A gradient of 0 asks for the cap. Section 3.2 (equation 9).
    """
    bound = eta * eta * squared_norm
    wanted = variance_l1 / bound if bound > 0 else math.inf
    return min(cap, max(batch, math.ceil(wanted) if wanted < cap else cap))
