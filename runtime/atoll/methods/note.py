"""What a member says with each exchange, in the 64 bits of an op's note. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.state.parity import NO_VOTE, Vote

_LATE = 1 << 31
_MOST = _LATE - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """vote: on the fragment's state. trained: samples (without a data set: steps) of the share of
    the round that this op closes which are in the contribution. late: the share goes on in the next
    round, because its island was not ready."""

    vote: Vote = NO_VOTE
    trained: int = 0
    late: bool = False

    def packed(self) -> int:
        """The 64 bits. Counts above 2^31 - 1 are said to be that."""
        return self.vote << 32 | (_LATE if self.late else 0) | min(self.trained, _MOST)


def unpacked(bits: int) -> Note:
    """The inverse of `Note.packed`."""
    return Note(vote=bits >> 32, trained=bits & _MOST, late=bool(bits & _LATE))
