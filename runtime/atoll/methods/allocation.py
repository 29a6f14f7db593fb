"""L-GreCo: a compression setting for every layer (arXiv 2210.17357).

The fewest bytes whose total error is no worse than that of one setting for all layers. A setting
may be a number of bits, a rank or a k: only its error and its size count. Deterministic, decided by
one member and told to the others; it changes at the boundary of a round.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from atoll.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

BUCKETS = 10_000


def compression_error(x: Tensor, compress: Callable[[Tensor], Tensor]) -> float:
    """||x - C(x)||, the L2 norm (not squared) of what C loses of a layer's accumulated gradient."""
    return float((x - compress(x)).double().norm())


def budget(reference_errors: Sequence[float], *, alpha: float = 1.0) -> float:
    """E = alpha * sum over the layers of the uniform reference's errors."""
    return alpha * math.fsum(reference_errors)


def bucketed(error: float, total: float, *, buckets: int = BUCKETS) -> int:
    """How many of the budget's buckets an error takes: rounded up, at least 1; buckets + 1 if it is
    more than all of them."""
    if error > total:
        return buckets + 1
    return max(1, math.ceil(error / total * buckets)) if total > 0 else 1


def allocate(
    errors: Sequence[Sequence[float]],
    sizes: Sequence[Sequence[int]],
    *,
    total_error: float,
    reference: Sequence[int],
    buckets: int = BUCKETS,
) -> tuple[int, ...]:
    """The setting of each layer: an index into its row of `errors` (L2) and `sizes` (bytes).

    DP[l][b] = min over c of DP[l-1][b - err(l, c)] + size(l, c). Rounding errors up may leave no
    room even for `reference`, the uniform setting (an index for each layer): it is the answer then,
    and whenever nothing smaller is found. Of equal sizes, the smallest rounded error wins, then the
    lowest index in the last layers. Algorithm 1. Raises MisuseError for rows that do not fit, and
    for a total_error that the reference itself exceeds.
    """
    import numpy as np

    _check(errors, sizes, total_error, reference)
    nowhere = np.iinfo(np.int64).max // 2
    best = np.full(buckets + 1, nowhere, dtype=np.int64)  # exactly b buckets are used
    best[0] = 0
    choices = []
    for layer_errors, layer_sizes in zip(errors, sizes, strict=True):
        after = np.full_like(best, nowhere)
        choice = np.full(buckets + 1, -1, dtype=np.int32)
        for index, (error, size) in enumerate(zip(layer_errors, layer_sizes, strict=True)):
            used = bucketed(error, total_error, buckets=buckets)
            if used > buckets:
                continue
            candidate = best[:-used] + size
            better = (candidate < after[used:]) & (best[:-used] < nowhere)
            after[used:][better] = candidate[better]
            choice[used:][better] = index
        best = after
        choices.append(choice)
    at = int(best.argmin())  # the first of equals
    reference_size = sum(row[index] for row, index in zip(sizes, reference, strict=True))
    if best[at] >= reference_size:
        return tuple(reference)
    picked: list[int] = []
    for layer in range(len(choices) - 1, -1, -1):
        index = int(choices[layer][at])
        picked.append(index)
        at -= bucketed(errors[layer][index], total_error, buckets=buckets)
    return tuple(reversed(picked))


def _check(
    errors: Sequence[Sequence[float]],
    sizes: Sequence[Sequence[int]],
    total_error: float,
    reference: Sequence[int],
) -> None:
    if not errors or [len(row) for row in errors] != [len(row) for row in sizes]:
        raise MisuseError("errors and sizes need one row a layer with one number a setting")
    if not all(math.isfinite(error) and error >= 0 for row in errors for error in row):
        raise MisuseError("errors must be finite numbers of at least 0")
    if len(reference) != len(errors):
        raise MisuseError(f"{len(reference)} reference settings for {len(errors)} layers")
    own = math.fsum(row[index] for row, index in zip(errors, reference, strict=True))
    if own > total_error * (1 + 1e-9):
        raise MisuseError(
            f"the reference's errors add up to {own:.6g}, more than the budget {total_error:.6g}"
        )
