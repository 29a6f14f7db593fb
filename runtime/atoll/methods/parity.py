"""A method's part in keeping members equal: it looks at its own memory, votes, and says from whom
it must take the state if it is wrong (atoll.state.parity has the rule).

A vote is on one fragment: the one that the op exchanges, as it was left by its own last exchange,
which all members have absorbed by then, whatever else is under way.

Thread: whichever runs the exchange; one at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atoll.state import parity
from atoll.state.manifest import digest

if TYPE_CHECKING:
    from atoll.membership.messages import PeerId
    from atoll.methods.exchange import Staged
    from atoll.methods.outer_state import OuterState
    from atoll.state.parity import Vote
    from atoll.state.transfer import Fetched

logger = logging.getLogger(__name__)

_NAMED = 8
"""Chunks that a message names; of others only the number is told."""


class Parity:
    """One member's checks, exchange after exchange."""

    def __init__(self, every: int) -> None:
        """every: rounds between two checks; 0: never."""
        self._every = every

    def examine(self, state: OuterState, fragment: int, round_: int) -> Vote | None:
        """The vote on a fragment; None: it is not what it was when it was published, which nobody
        but the method's own step may change. NO_VOTE: no check is due."""
        if not self._every or round_ % self._every:
            return parity.NO_VOTE
        slot = state.now[fragment]
        found = state.described(fragment, slot)
        if slot.entries and found != slot.entries:
            logger.error(
                "round %d: this island's outer state has changed in memory (faulty hardware, or a "
                "script that writes to it); left out of this round",
                round_ + 1,
            )
            return None
        return parity.vote_of(digest("".join(d for e in found for d in e.digests).encode()))

    def may_be_anchor(self, state: OuterState, staged: Staged, round_: int) -> bool:
        """Whether the slot that a Delta was taken from is what it was when it was published.

        It is another one than `examine` sees where the state moved on between the two, as it does
        when exchanges are taken up a round late.
        """
        slot = staged.anchor
        if slot is None or slot is state.now[staged.fragment] or not slot.entries:
            return True
        if not self._every or round_ % self._every:
            return True
        if state.described(staged.fragment, slot) == slot.entries:
            return True
        logger.error(
            "round %d: the outer state that this island's work began from has changed in memory "
            "(faulty hardware, or a script that writes to it); its work is left out of this round",
            round_ + 1,
        )
        return False


def donors(votes: Sequence[Vote], members: Sequence[PeerId], peer: PeerId) -> frozenset[PeerId]:
    """From whom `peer` would take the state, after the op whose members cast these votes."""
    return frozenset(members[rank] for rank in parity.judged(votes).right) - {peer}


def outvoted(votes: Sequence[Vote], members: Sequence[PeerId], peer: PeerId) -> bool:
    """Whether most others hold another state than `peer`."""
    return any(members[rank] == peer for rank in parity.judged(votes).wrong)


def described(fetched: Fetched) -> str:
    """Which chunks were wrong, and who had them right."""
    names = [
        f"{fetched.manifest.tensors[chunk.tensor].name} at byte {chunk.offset}"
        for chunk in sorted(fetched.chunks, key=lambda one: (one.tensor, one.offset))
    ]
    total = sum(len(entry.digests) for entry in fetched.manifest.tensors)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    which = f" ({', '.join(names[:_NAMED])}{more})" if names else ""
    donors = sum(1 for count in fetched.bytes_from.values() if count)
    return f"{len(names)} of {total} chunks differed{which}, taken from {donors} islands"
