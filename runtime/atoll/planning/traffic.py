"""What one exchange costs on a network: bytes by the formulas of docs/collectives.md, seconds by
the core's own cost model. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from atoll import _core
from atoll.methods.traffic import all_gather_bytes, all_reduce_bytes
from atoll.planning.job import Choice
from atoll.planning.network import Ints, Network
from atoll.planning.simulate import Cost

HEADER_BYTES = 48
"""Of each chunk, and of DONE; START has 96. As in docs/wire.md."""
NOTICE_BYTES = 96 + 48
EAGER_BYTES = 512 << 10
"""As in csrc/atoll/base/limits.h: sent to a member before its START has come."""
FLAT_DONE_MEMBERS = 8
"""As in csrc/atoll/collective/core.h: larger views commit along a binary tree."""
_PIECE = 1 << 30
"""Whole blocks of every codec."""
_VAST = 1 << 44
"""Bytes of a vector of which nothing counts but the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One exchange of all islands.

    plan: how the bytes go. sent_bytes: the mean of the islands, most_sent_bytes: of the one that
    sends most, both with headers and notices. busy_s: of a link. latency_s: the rest until all have
    committed.
    """

    plan: str
    sent_bytes: float
    most_sent_bytes: float
    busy_s: float
    latency_s: float

    @property
    def seconds(self) -> float:
        return self.busy_s + self.latency_s


NOTHING = Traffic(plan="none", sent_bytes=0.0, most_sent_bytes=0.0, busy_s=0.0, latency_s=0.0)


class Wires:
    """A network and what the core makes of it, which takes up to seconds for 256 islands."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.all_reduce = lru_cache(maxsize=None)(self._all_reduce)

    @cached_property
    def topology(self) -> _core.Topology | None:
        """What the members would know; derived when it is first asked for."""
        return self.network.topology()

    def traffic(self, choice: Choice, params: int) -> Traffic:
        """One exchange of so many parameters; of pairs: in the mean of all links."""
        network = self.network
        if network.islands < 2 or params == 0:
            return NOTHING
        if choice.bits is not None:
            return self._fitted(choice, params)
        match choice.method:
            case "noloco":
                wire = pair_bytes(choice, params)
                return Traffic(
                    plan="pairs",
                    sent_bytes=wire,
                    most_sent_bytes=wire * (1 + network.islands % 2),
                    busy_s=wire * _mean_link_s_per_byte(network),
                    latency_s=network.latency_s,
                )
            case "sparseloco":
                return self._all_gather(int(params * choice.sparse_bits / 8))
            case _:
                return self.all_reduce(choice.codec, choice.plan, params)

    def _fitted(self, choice: Choice, params: int) -> Traffic:
        assert choice.bits is not None
        wire = choice.bits * params / 8
        hops = 1 if choice.method in ("noloco", "sparseloco") else 2
        return Traffic(
            plan="fitted",
            sent_bytes=wire,
            most_sent_bytes=wire,
            busy_s=wire / self.network.slowest_bytes_per_s,
            latency_s=hops * self.network.latency_s,
        )

    def _all_reduce(self, codec: str, named: str, params: int) -> Traffic:
        islands = self.network.islands
        plan, chunk = _core.plan_all_reduce(params, islands, codec, self.topology)
        if named != "auto":
            plan = named
        wire = wire_bytes(codec, params)
        chunk_wire = _core.encoded_bytes(codec, chunk // 4)
        with_headers = wire + HEADER_BYTES * wire // chunk_wire
        seconds = self._seconds(with_headers, chunk_wire)[plan]
        rate_only = self._slope(plan, chunk_wire) * with_headers
        mean, most = self._sent(plan, with_headers, 4 * params)
        notices = NOTICE_BYTES * (islands - 1)
        return Traffic(
            plan=plan,
            sent_bytes=mean + notices,
            most_sent_bytes=most + notices,
            busy_s=min(seconds, rate_only),
            latency_s=max(0.0, seconds - rate_only) + self._protocol_s(plan, wire / islands),
        )

    def _all_gather(self, block: int) -> Traffic:
        """Everybody sends its block to everybody: what the mesh does with a vector."""
        islands = self.network.islands
        wire = block + HEADER_BYTES * (1 + block // EAGER_BYTES)
        busy = self._slope("mesh", EAGER_BYTES) * wire
        sent = all_gather_bytes(wire + NOTICE_BYTES, islands)
        return Traffic(
            plan="all-gather",
            sent_bytes=sent,
            most_sent_bytes=sent,
            busy_s=busy,
            latency_s=self.network.latency_s + self._protocol_s("mesh", block),
        )

    def _seconds(self, wire: int, chunk_wire: int) -> dict[str, float]:
        if self.topology is not None:
            return self.topology.predict(wire, chunk_wire)
        network = self.network
        latency, s_per_byte = network.ring()
        return _core.unmeasured_seconds(
            network.islands,
            wire,
            chunk_wire,
            network.slowest_bytes_per_s,
            network.latency_s,
            latency,
            s_per_byte,
        )

    def _slope(self, plan: str, chunk_wire: int) -> float:
        """Seconds for each byte of a vector, latencies aside."""
        one, two = (self._seconds(times * _VAST, chunk_wire)[plan] for times in (2, 4))
        return (two - one) / (2 * _VAST)

    def _protocol_s(self, plan: str, first_bytes: float) -> float:
        """What the cost model, which compares plans, leaves out because all of them have it.

        The notices by which an op commits: one way each to all, in large views up and down a binary
        tree. And START: before it has come, a member is sent so many bytes at most, and the line
        idles if those are through sooner.
        """
        network = self.network
        depth = network.islands.bit_length() - 1
        commit = 1 if network.islands <= FLAT_DONE_MEMBERS else 2 * depth
        peers = network.islands - 1 if plan in ("direct", "mesh") else 1
        idle = 0.0
        if first_bytes > EAGER_BYTES:
            idle = network.latency_s - peers * EAGER_BYTES / network.slowest_bytes_per_s
        return commit * network.latency_s + max(0.0, idle)

    def _sent(self, plan: str, wire: float, plain: float) -> tuple[float, float]:
        """(mean, most) of payload and chunk headers that an island sends; `plain`: uncoded."""
        n = self.network.islands
        around = all_reduce_bytes(wire, n)
        match plan:
            case "direct" if self.topology is not None:
                part = max(self.topology.part_weights) / sum(self.topology.part_weights)
                return around, max(around, ((1 - part) + (n - 1) * part) * wire)
            case "doubling":
                core = 1 << (n.bit_length() - 1)
                folds = 2 * (n - core) * wire
                exchanges = core * (n.bit_length() - 1) * wire
                most = (n.bit_length() - 1 + (1 if n > core else 0)) * wire
                return (folds + exchanges) / n, most
            case "mesh":
                return (n - 1) * wire, (n - 1) * wire
            case "grouped":
                return self._grouped(wire, plain)
            case _:
                return around, around

    def _grouped(self, wire: float, plain: float) -> tuple[float, float]:
        assert self.topology is not None  # without figures no plan is grouped
        members = np.bincount(self.topology.sites)
        sites, slices = len(members), members.min()
        inside = 2 * (members.sum() - sites) * plain
        between = 2 * (sites - 1) * wire
        led = (slices - 1 + members.max() - 1) * plain + 2 * (sites - 1) / sites * wire
        return float((inside + between) / members.sum()), float(max(led / slices, plain))


def wire_bytes(codec: str, params: int) -> int:
    """Of so many numbers as they travel, also of more than the core takes as one vector."""
    pieces, rest = divmod(params, _PIECE)
    return pieces * _core.encoded_bytes(codec, _PIECE) + _core.encoded_bytes(codec, rest)


def pair_bytes(choice: Choice, params: int) -> float:
    """Of `params` numbers to one partner, with headers; a pair's exchange has no notices."""
    wire = wire_bytes(choice.codec, params)
    return float(wire + HEADER_BYTES * (1 + wire // EAGER_BYTES))


def pairs_of(islands: int, round_: int) -> Ints:
    """[islands]: the group of each in a round: random pairs; of an odd number, one of three."""
    order = np.random.default_rng(round_).permutation(islands)
    group = np.empty(islands, dtype=np.intp)
    group[order] = np.minimum(np.arange(islands) // 2, max(0, islands // 2 - 1))
    return group


def pair_cost(network: Network, wire: float, round_: int) -> Cost:
    """An exchange of `wire` bytes each way, within the pairs of a round."""
    group = pairs_of(network.islands, round_)
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(int(group.max()) + 1))
    busy = np.zeros(network.islands)
    latency = np.zeros(network.islands)
    size = np.bincount(group)
    for ahead in (1, 2):  # the next in the group, and in a group of three the one after
        at = np.arange(network.islands) - first[group[order]]
        other = order[first[group[order]] + (at + ahead) % size[group[order]]]
        there = other != order
        if ahead == 2:
            there &= size[group[order]] > 2
        slower = np.minimum(network.rates(order, other), network.rates(other, order))
        busy[order] += np.where(there, wire / slower, 0.0)
        longer = np.maximum(network.latencies(order, other), network.latencies(other, order))
        latency[order] = np.maximum(latency[order], np.where(there, longer, 0.0))
    return Cost(busy_s=busy, latency_s=latency, group=group)


def _mean_link_s_per_byte(network: Network) -> float:
    """Over all pairs of different islands, in the slower direction."""
    members = np.bincount(network.site, minlength=len(network.rtt_s)).astype(float)
    pairs = np.outer(members, members)
    pairs[np.diag_indices(len(members))] -= members
    slower = np.minimum(network.rate_bytes_per_s, network.rate_bytes_per_s.T)
    total = pairs.sum()
    used = pairs > 0
    return float((pairs[used] / slower[used]).sum() / total) if total else 0.0
