"""Error feedback around a lossy compressor: EF, EF21 and EControl (arXiv 2311.05645).

C is a contractive compressor, g a gradient (or an outer gradient), e the residual that a worker
keeps, h what all know of its gradient. EF steps along the mean of the messages, the others along
the mean of h. At the beginning e = 0 and h = 0 (or h = g0, sent dense).

When members come or go, h of all is set to 0, because the shared mean of h holds everybody's;
plain EF needs nothing, hence is the default for groups that change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Compressor = Callable[[Tensor], Tensor]


def ef_step(e: Tensor, g: Tensor, compress: Compressor) -> tuple[Tensor, Tensor]:
    """(m, e'): m = C(e + g);  e' = e + g - m. All of one shape; m is sent.

    Algorithm 1 (EC).
    """
    m = compress(e + g)
    return m, e + g - m


def ef21_step(h: Tensor, g: Tensor, compress: Compressor) -> tuple[Tensor, Tensor]:
    """(c, h'): c = C(g - h);  h' = h + c. All of one shape; c is sent.

    arXiv 2106.05203, algorithm 1.
    """
    c = compress(g - h)
    return c, h + c


def econtrol_step(
    e: Tensor, h: Tensor, g: Tensor, compress: Compressor, *, eta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(c, e', h'): c = C(eta * e + g - h);  e' = e + g - h - c;  h' = h + c. c is sent.

    All of one shape. eta enters C alone, so e(t+1) - e(t) = g(t) - h(t+1). eta 0 is EF21; with C
    the identity and e = 0, h' = g: plain SGD. Algorithm 2 (EControl).
    """
    c = compress(eta * e + g - h)
    return c, e + g - h - c, h + c
