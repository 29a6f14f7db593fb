"""AdamW of which no bit depends on how the parameters are cut (arXiv 1711.05101, algorithm 2).

Every line is one IEEE operation an element: no fused multiply-add, which vector and scalar code
(a slice's tail) apply differently, and no library function that rounds differently from machine to
machine. Hence an update of a slice is the slice of the update, on any processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.errors import MisuseError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """The settings. `lr` may be another one in each step; the rest is fixed for the run."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if not all(0.0 <= beta < 1.0 for beta in self.betas) or self.eps <= 0.0:
            raise MisuseError(f"AdamW needs betas in [0, 1) and an eps above 0, not {self}")


def power(base: float, exponent: int) -> float:
    """base ** exponent by squaring: multiplications alone, unlike the C library's pow."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def apply(settings: AdamW, p: Tensor, m: Tensor, v: Tensor, g: Tensor, *, step: int) -> None:
    """One update in place. p, m, v, g: [n] float32; `step` counts from 1.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    p = p - lr wd p - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps).
    """
    beta1, beta2 = settings.betas
    correction1 = 1.0 - power(beta1, step)
    correction2 = 1.0 - power(beta2, step)
    m.mul_(beta1)
    m.add_(g.mul(1.0 - beta1))
    v.mul_(beta2)
    v.add_(g.square().mul_(1.0 - beta2))
    denominator = v.sqrt().div_(math.sqrt(correction2)).add_(settings.eps)
    p.mul_(1.0 - settings.lr * settings.weight_decay)
    p.sub_(m.mul(settings.lr / correction1).div_(denominator))
