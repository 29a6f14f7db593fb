"""Who is right when members hold different states: votes in an op, and their count. Pure.

Each member says a vote with an op: a part of the digest of its state. When the op has committed,
all its members know the same votes, so all come to the same verdict without a word more.

Most votes win. When two states have as many votes, with two members always, that of the oldest
member wins: age is the one order that all agree on, the coordinator keeps the older side when
islands cannot reach each other, and younger members have their state from older ones. Who finds
that its memory is not what it published casts no vote, so of two members the one that is sound wins
in that case, whatever its age.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Vote = int
"""32 bits. Two that differ look alike once in 2^32."""

NO_VOTE: Vote = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Ranks of those who hold the state that won, and of those who voted for another."""

    right: tuple[int, ...]
    wrong: tuple[int, ...]


def vote_of(digest: str) -> Vote:
    """The vote for the state with this digest (hex, 8 digits at least); never NO_VOTE."""
    return int(digest[:8], 16) or 1


def judged(votes: Sequence[Vote]) -> Verdict:
    """The verdict on the votes by rank, the oldest member's first."""
    groups: dict[Vote, list[int]] = {}
    for slot, vote in enumerate(votes):
        if vote != NO_VOTE:
            groups.setdefault(vote, []).append(slot)
    if not groups:
        return Verdict(right=(), wrong=())
    # The first of the largest: groups are in the order of their oldest members.
    right = max(groups.values(), key=len)
    wrong = sorted(slot for group in groups.values() if group is not right for slot in group)
    return Verdict(right=tuple(right), wrong=tuple(wrong))
