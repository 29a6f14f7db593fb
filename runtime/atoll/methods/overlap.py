"""Outer gradients that arrive a round late (arXiv 2502.12996).

The exchange of round t may take all of round t + 1. Same bytes as DiLoCo; a latency of H inner
steps is hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.methods.outer import nesterov_step

if TYPE_CHECKING:
    from torch import Tensor


def eager_update(
    mean_before: Tensor, delta: Tensor, delta_before: Tensor, *, share: float
) -> Tensor:
    """Delta~_m(t) = mean Delta(t-1) + share * (Delta_m(t) - Delta_m(t-1)), all of one shape.

    The outer gradient of member m: the others' part is one round old, its own is fresh. share: its
    part of the mean, 1/M for M equal members, else w_m / sum of w; 0 if the mean of round t-1 was
    made without it. Differs from member to member. Section 3.2 (eager updates).
    """
    return mean_before + share * (delta - delta_before)


def eager_sum(deltas_before: list[Tensor], delta: Tensor, *, member: int) -> Tensor:
    """The same written as the paper does: 1/M (Delta_m(t) + sum over j != m of Delta_j(t-1))."""
    total = delta
    for other, before in enumerate(deltas_before):
        if other != member:
            total = total + before
    return total / len(deltas_before)


def delayed_update(
    theta: Tensor, momentum: Tensor, mean_before: Tensor | None, *, lr: float, mu: float
) -> tuple[Tensor, Tensor]:
    """The outer step of round t along mean Delta(t-1): (theta', momentum'), all of one shape.

    None: of the first round, when nothing has arrived yet and nothing changes. Equal on all
    members. Section 3.1 (naive delayed outer gradients).
    """
    if mean_before is None:
        return theta, momentum
    return nesterov_step(theta, momentum, mean_before, lr=lr, mu=mu)
