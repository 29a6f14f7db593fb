"""The outer steps of the papers as functions of tensors.

These state what a step is; on the path that all members must compute alike the core's kernel of
the same name runs (`atoll._core.nesterov_step`: fp32, fixed order, no contraction), and a test
holds the two against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def outer_gradient(theta_shared: Tensor, theta_local: Tensor) -> Tensor:
    """Delta = theta_shared - theta_local, old minus new: an outer optimizer descends along it.

    Both of one shape. DiLoCo, arXiv 2311.08105, algorithm 1, line 12.
    """
    return theta_shared - theta_local


def nesterov_step(
    theta: Tensor, momentum: Tensor, delta: Tensor, *, lr: float, mu: float
) -> tuple[Tensor, Tensor]:
    """One step of SGD with Nesterov momentum: (theta', momentum'), all of one shape.

    momentum' = mu * momentum + delta;  theta' = theta - lr * (delta + mu * momentum').
    DiLoCo, arXiv 2311.08105, section 2 (outer optimizer).
    """
    momentum = mu * momentum + delta
    return theta - lr * (delta + mu * momentum), momentum
