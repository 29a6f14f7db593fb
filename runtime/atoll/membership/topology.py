"""What members have measured of their links: who measures whom when, and the bytes of a view.

Pure functions. The format of the bytes is that of csrc/atoll/topology/topology.h, which derives
plans from them; here figures are merged, compared and written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from atoll.membership.messages import LinkFigures, PeerId

MAX_MEMBERS = 256
"""As in topology.h: larger views have no topology."""
RATE_UNIT = 1000.0
RTT_UNIT = 1e-6
MOST = 2**32 - 1

RATE_CHANGE = 1.3
RTT_CHANGE = 1.5
RTT_FLOOR_S = 0.002
"""A rate that differs by less than a factor of 1.3, a round trip by less than 1.5 or by less than
2 ms, is no news: so much comes and goes with what else the line carries."""

ALIKE = 0.6
"""Rates above this part of the fastest are taken to be equal: bursts of less than a second are not
better than that, and parts and rings would follow the noise."""

Figures = Mapping[tuple[PeerId, PeerId], LinkFigures]


def partner(members: int, slot: int, rank: int) -> int | None:
    """With whom `rank` exchanges probes in a slot of a round-robin tournament (circle method).

    In `slots(members)` slots everybody meets everybody once, and in no slot anybody meets two.
    None: nobody, when the members are odd.
    """
    even = members + members % 2
    around = even - 1  # all but the last sit in a circle
    if rank == around:
        other = slot * (even // 2) % around  # who would meet itself
    else:
        other = (slot - rank) % around
        if other == rank:
            other = around
    return None if other >= members else other


def slots(members: int) -> int:
    """How many slots a tournament takes."""
    return members - 1 + members % 2 if members > 1 else 0


def encode(members: Sequence[PeerId], figures: Figures) -> bytes:
    """The bytes for a view of `members`, by rank; empty when nothing is known or may be said.

    A link that was not measured gets the figures of its other direction, else the medians of what
    is known. A member sends (receives) in all what its fastest link does.
    """
    if not 2 <= len(members) <= MAX_MEMBERS:
        return b""
    known = [figures[pair] for pair in _pairs(members) if pair in figures]
    if not known:
        return b""
    typical = LinkFigures(
        rate_bytes_per_s=_median(f.rate_bytes_per_s for f in known),
        rtt_s=_median(f.rtt_s for f in known),
    )
    links = {
        (one, other): figures.get((one, other), figures.get((other, one), typical))
        for one, other in _pairs(members)
    }
    rates = _smoothed([link.rate_bytes_per_s for link in links.values()])
    links = {
        pair: LinkFigures(rate_bytes_per_s=rate, rtt_s=link.rtt_s)
        for (pair, link), rate in zip(links.items(), rates, strict=True)
    }
    words = []
    for member in members:
        others = [other for other in members if other != member]
        words.append(_units(max(links[member, o].rate_bytes_per_s for o in others), RATE_UNIT))
        words.append(_units(max(links[o, member].rate_bytes_per_s for o in others), RATE_UNIT))
    for one in members:
        for other in members:
            if one == other:
                words += [0, 0]
            else:
                link = links[one, other]
                words += [_units(link.rate_bytes_per_s, RATE_UNIT), _units(link.rtt_s, RTT_UNIT)]
    return struct.pack(f"<BBH{len(words)}I", 1, 0, len(members), *words)


def _smoothed(rates: Sequence[float]) -> list[float]:
    """The rates, those alike replaced by the median of their kind, from the fastest down."""
    ordered = sorted(rates, reverse=True)
    medians: dict[float, float] = {}
    while ordered:
        kind = [rate for rate in ordered if rate >= ALIKE * ordered[0]]
        medians |= dict.fromkeys(kind, _median(kind))
        ordered = ordered[len(kind) :]
    return [medians[rate] for rate in rates]


def is_news(old: bytes, new: bytes) -> bool:
    """Whether members of one view should be told `new` where they know `old`. Both are of
    `encode`, for the same members."""
    if not new or old == new:
        return False
    if len(old) != len(new):
        return True
    members = int.from_bytes(new[2:4], "little")
    words = (len(new) - 4) // 4
    before = struct.unpack(f"<{words}I", old[4:])
    after = struct.unpack(f"<{words}I", new[4:])
    for place, (was, now) in enumerate(zip(before, after, strict=True)):
        low, high = min(was, now), max(was, now)
        if place < 2 * members or place % 2 == 0:
            if high > RATE_CHANGE * low:
                return True
        elif high > RTT_CHANGE * low and (high - low) * RTT_UNIT > RTT_FLOOR_S:
            return True
    return False


def _pairs(members: Sequence[PeerId]) -> Iterable[tuple[PeerId, PeerId]]:
    return ((one, other) for one in members for other in members if one != other)


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def _units(value: float, unit: float) -> int:
    return max(1, min(MOST, int(value / unit + 0.5)))
