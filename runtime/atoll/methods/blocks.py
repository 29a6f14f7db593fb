"""Data shares without a collective: blocks of a pass, counted by everybody for itself. Pure.

A pass is cut into blocks of one island's samples of one round. In a round of N members the member
of rank r has block `first + r`; then `first` goes on by N. Members that see the same views in the
same rounds never have the same block. When a view changes, some see it a round later: about a
round's blocks are then used twice, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.data.ledger import Plan, Spans


@dataclass(slots=True)
class Blocks:
    """`first`: the block of rank 0 in the running round."""

    first: int = 0
    members: int = 1

    def begin(self, members: int) -> None:
        """A round begins in a view of so many."""
        self.members = max(1, members)

    def end(self) -> None:
        """The round is over."""
        self.first += self.members

    def spans(self, plan: Plan | None, rank: int) -> Spans:
        """The positions of a member's block in its pass."""
        if plan is None:
            return ()
        size = plan.batch_size * plan.steps
        block = (self.first + rank) % _count(plan)
        return ((block * size, min(plan.samples, (block + 1) * size)),)

    def epoch(self, plan: Plan | None, rank: int) -> int:
        """The pass that the block is of."""
        return 0 if plan is None else (self.first + rank) // _count(plan)


def _count(plan: Plan) -> int:
    """Blocks of a pass; the last may be smaller."""
    return -(-plan.samples // (plan.batch_size * plan.steps))
