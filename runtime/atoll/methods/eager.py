"""What eager updates remember between two rounds (arXiv 2502.12996).

Delta~_m(t) = mean Delta(t-1) + share * (Delta_m(t) - Delta_m(t-1)): an island's own part is applied
a round before the mean that has it, and taken out when that arrives. What was applied early is part
of the state ("early" = share * Delta_m), so that it is taken out exactly, whatever the weights and
the members were, and by a joiner who copied it.

Thread: the exchange thread fills `mean` while no step of the user's reads it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atoll.methods.overlap import eager_update

if TYPE_CHECKING:
    import torch

    from atoll.methods.exchange import Staged

logger = logging.getLogger(__name__)


class Eager:
    """`mean`: of the last round; None before the first has arrived here. `early`: see `along`."""

    def __init__(self) -> None:
        self.mean: torch.Tensor | None = None
        self.early: torch.Tensor
        self._total_weight = 0.0

    def arrived(self, mean: torch.Tensor, total_weight: float) -> None:
        """The mean of a round, which stays where it is until the next one comes."""
        import torch

        self._total_weight = total_weight
        self.mean = mean if bool(torch.isfinite(mean).all()) else None
        if self.mean is None:
            logger.error("the mean of all members is not finite; it is left out")

    def part_of(self, staged: Staged) -> torch.Tensor:
        """share * Delta_m; share: the island's weight among those of the last round's mean."""
        import torch

        if staged.weight <= 0:
            return torch.zeros_like(staged.delta)
        staged.ready()
        share = staged.weight / max(self._total_weight, staged.weight)
        part = share * staged.delta
        return part if bool(torch.isfinite(part).all()) else torch.zeros_like(part)

    def along(self, staged: Staged, early_before: torch.Tensor) -> torch.Tensor:
        """Delta~_m of this round, [numel]; `early` is then what of it is applied early."""
        assert self.mean is not None
        self.early = self.part_of(staged)
        return eager_update(self.mean, self.early, early_before, share=1.0)
