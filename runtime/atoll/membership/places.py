"""Sets of peers as whole numbers: a bit each. Ten thousand peers that are all linked with one
another are ten thousand numbers of 1,250 bytes, and whom one of them misses is one operation.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable

from atoll.membership.messages import PeerId

SPARE = 1_000


class Places:
    """Which bit is whose. A peer keeps its bit when it departs: others may go on saying that they
    are linked with it, and it may come back."""

    def __init__(self) -> None:
        self._place: dict[PeerId, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._place)

    def admit(self, peer: PeerId) -> int:
        """Returns the peer's bit."""
        place = self._place.get(peer)
        if place is None:
            place = self._free.pop() if self._free else len(self._place)
            self._place[peer] = place
        return 1 << place

    def admit_all(self, peers: Collection[PeerId]) -> int:
        """Returns the peers' bits. Not all need to be known otherwise: after the coordinator's
        restart a member may speak of one that has not come back yet."""
        for peer in peers:
            self.admit(peer)
        return self.bits(peers)

    def bits(self, peers: Collection[PeerId]) -> int:
        """Of those that were ever admitted."""
        found = [self._place[peer] for peer in peers if peer in self._place]
        if len(found) < 64:
            return sum(1 << place for place in set(found))
        data = bytearray(len(self._place) // 8 + 1)
        for place in found:
            data[place >> 3] |= 1 << (place & 7)
        return int.from_bytes(data, "little")

    def forget(self, kept: Container[PeerId], used: Iterable[int]) -> None:
        """Makes room when there are far more bits than peers: those that are not `kept`, and in
        none of the numbers in `used`."""
        together = 0
        for bits in used:
            together |= bits
        for peer, place in list(self._place.items()):
            if peer not in kept and not together >> place & 1:
                del self._place[peer]
                self._free.append(place)


def each(bits: int) -> Iterable[int]:
    """Each bit of a number by itself, the lowest first."""
    while bits:
        bit = bits & -bits
        yield bit
        bits ^= bit
