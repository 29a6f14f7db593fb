"""The islands' network, as far as a prediction needs it.

Islands lie in sites, and a link is what the two sites of its ends make it. So ten thousand islands
need no matrix of a hundred million links; a full matrix is one with as many sites as islands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atoll import _core
from atoll.membership.messages import LinkFigures
from atoll.membership.topology import MAX_MEMBERS, encode

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

TCP_IP_BYTES = 52
"""Of each packet: IPv4 (20) and TCP with timestamps (32)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """What joins N islands in K sites.

    site: [N], the site of each island, by rank. rate_bytes_per_s, rtt_s: [K, K], of a link from an
    island of one site to one of another; the diagonal: within a site. step_s: [N], what an inner
    step takes each island.
    """

    site: Ints
    rate_bytes_per_s: Floats
    rtt_s: Floats
    step_s: Floats

    @property
    def islands(self) -> int:
        return len(self.site)

    def rates(self, senders: Ints, receivers: Ints) -> Floats:
        """Bytes per second from senders[i] to receivers[i]."""
        return self.rate_bytes_per_s[self.site[senders], self.site[receivers]]

    def latencies(self, senders: Ints, receivers: Ints) -> Floats:
        """Seconds one way from senders[i] to receivers[i]: half of the round trip."""
        return self.rtt_s[self.site[senders], self.site[receivers]] / 2

    @property
    def slowest_bytes_per_s(self) -> float:
        """Of all links between two islands; infinity for one island."""
        used = self.rate_bytes_per_s[self._used()]
        return float(used.min()) if used.size else float("inf")

    @property
    def fastest_bytes_per_s(self) -> float:
        """Of all links between two islands; 0 for one island."""
        return float(self.rate_bytes_per_s[self._used()].max(initial=0.0))

    @property
    def latency_s(self) -> float:
        """One way, of the longest link; 0 for one island."""
        used = self.rtt_s[self._used()]
        return float(used.max()) / 2 if used.size else 0.0

    def ring(self) -> tuple[float, float]:
        """Seconds one way and seconds for a byte, both summed over the ring in order of ranks."""
        ranks = np.arange(self.islands)
        following = np.roll(ranks, -1)
        latency = self.latencies(ranks, following).sum()
        return float(latency), float((1 / self.rates(ranks, following)).sum())

    def with_payload_share(self, share: float) -> Network:
        """The same, where only this share of each link's rate is left to what TCP carries."""
        return replace(self, rate_bytes_per_s=self.rate_bytes_per_s * share)

    def with_rate(self, bytes_per_s: float) -> Network:
        """The same with every link as fast as this."""
        return replace(self, rate_bytes_per_s=np.full_like(self.rate_bytes_per_s, bytes_per_s))

    def topology(self) -> _core.Topology | None:
        """What the members would know of each other; None where the core has no figures."""
        if not 2 <= self.islands <= MAX_MEMBERS:
            return None
        names = [b"%d" % rank for rank in range(self.islands)]
        ranks = np.arange(self.islands)
        rates = self.rates(ranks[:, None], ranks[None, :]).tolist()
        rtts = (2 * self.latencies(ranks[:, None], ranks[None, :])).tolist()
        figures = {
            (one, other): LinkFigures(rate_bytes_per_s=rates[i][j], rtt_s=rtts[i][j])
            for i, one in enumerate(names)
            for j, other in enumerate(names)
            if i != j
        }
        return _core.Topology(encode(names, figures))

    def _used(self) -> NDArray[np.bool_]:
        """[K, K]: between which sites there are two different islands."""
        members = np.bincount(self.site, minlength=len(self.rtt_s))
        there = members > 0
        used: NDArray[np.bool_] = there[:, None] & there[None, :]
        used[np.diag_indices(len(members))] = members > 1
        return used


def uniform(islands: int, bytes_per_s: float, rtt_s: float, step_s: float) -> Network:
    """Every link alike."""
    return Network(
        site=np.zeros(islands, dtype=np.intp),
        rate_bytes_per_s=np.full((1, 1), bytes_per_s),
        rtt_s=np.full((1, 1), rtt_s),
        step_s=np.full(islands, step_s),
    )


def payload_share(mtu: int) -> float:
    """The share of a link's rate that is left to TCP's payload; 1 for mtu 0: it is that already."""
    return 1.0 if mtu == 0 else (mtu - TCP_IP_BYTES) / mtu
