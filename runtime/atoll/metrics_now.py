"""Metrics that are read at the moment of a scrape: the view, and the engine's counters.

A link is labelled with the island at its other end. Islands come back under their names, peers'
ids never do: a job that lives long has no more series than islands. What ended incarnations of an
island had counted is kept, so that no counter goes back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from atoll import _core
    from atoll.control.membership import Membership

MOST_NAMES = 1024
"""Of peers whose islands are remembered: links' counters outlive their peers for a while."""

# Name, help, and which field of the core's it is; Prometheus adds _total.
_LINK_COUNTERS = (
    ("atoll_link_repairs", "Connections that took the place of lost ones.", "repairs"),
    (
        "atoll_link_damaged_frames",
        "Received with a wrong checksum; each cost its connection.",
        "damaged_frames",
    ),
    (
        "atoll_link_retransmitted_segments",
        "Sent again by TCP, of links that do not go through shared memory.",
        "retransmitted",
    ),
)
_LINK_PAIRS = (
    ("atoll_link_bytes", "At the socket.", ("sent_bytes", "received_bytes"), 1.0),
    (
        "atoll_link_busy_seconds",
        "With something to send, or inside a frame being received.",
        ("sending_ns", "receiving_ns"),
        1e-9,
    ),
)
_REJECTIONS = ("bad_hello", "garbage", "timeout", "overload", "tls", "name")


class NowCollector:
    """For a registry. Thread: whoever scrapes."""

    def __init__(
        self, read_engine: Callable[[], _core.EngineStats], read_peers: Callable[[], Membership]
    ) -> None:
        self._read_engine = read_engine
        self._read_peers = read_peers
        self._lock = threading.Lock()
        self._islands: dict[bytes, str] = {}
        self._last: dict[tuple[bytes, str], int] = {}
        self._totals: dict[tuple[str, str], int] = {}

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            families = list(self._collect())
        return iter(families)

    def _collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        membership = self._read_peers()
        view = membership.view
        yield GaugeMetricFamily("atoll_view_epoch", "Of the installed view.", value=view.epoch)
        yield GaugeMetricFamily("atoll_view_members", "Members of it.", value=len(view.members))
        for info in (*membership.peers, *view.members):
            self._islands.pop(info.id, None)
            self._islands[info.id] = info.island
        while len(self._islands) > MOST_NAMES:
            del self._islands[next(iter(self._islands))]
        stats = self._read_engine()
        yield from self._links(stats.links)
        yield from _engine(stats)

    def _links(self, links: list[_core.LinkStats]) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        named = {link.peer: self._islands.get(link.peer, link.peer.hex()[:8]) for link in links}
        self._count(links, named)
        names = sorted({name for name, _ in self._totals})
        for metric, text, field in _LINK_COUNTERS:
            counter = CounterMetricFamily(metric, text, labels=["peer"])
            for name in names:
                counter.add_metric([name], self._totals[name, field])
            yield counter
        for metric, text, fields, unit in _LINK_PAIRS:
            counter = CounterMetricFamily(metric, text, labels=["peer", "direction"])
            for name in names:
                for direction, field in zip(("sent", "received"), fields, strict=True):
                    counter.add_metric([name, direction], self._totals[name, field] * unit)
            yield counter
        up = GaugeMetricFamily("atoll_link_up", "1 while the link is up.", labels=["peer"])
        transport = GaugeMetricFamily(
            "atoll_link_transport",
            "1 for what the link that is up goes through: tcp, tls or shm (shared memory).",
            labels=["peer", "transport"],
        )
        connections = GaugeMetricFamily(
            "atoll_link_connections", "Connections of the link that is up.", labels=["peer"]
        )
        rtt = GaugeMetricFamily(
            "atoll_link_rtt_seconds",
            "Round trip, as the kernel smooths it, of links over TCP that are up.",
            labels=["peer"],
        )
        pace = GaugeMetricFamily(
            "atoll_link_pace_bytes_per_second",
            "How fast the link that is up sends at most, from its part of the measured lines and "
            "what arrived since; 0: as fast as may be.",
            labels=["peer"],
        )
        living = {named[link.peer]: link for link in links if link.up}
        for name in sorted(set(named.values())):
            up.add_metric([name], float(name in living))
        for name, link in sorted(living.items()):
            transport.add_metric([name, link.transport], 1.0)
            connections.add_metric([name], link.connections)
            pace.add_metric([name], link.pace_bytes_per_s)
            if link.round_trip_ns:
                rtt.add_metric([name], link.round_trip_ns / 1e9)
        yield from (up, transport, connections, pace, rtt)

    def _count(self, links: list[_core.LinkStats], named: dict[bytes, str]) -> None:
        """Adds what each link has counted since the last scrape to its island's totals."""
        fields = [field for *_, field in _LINK_COUNTERS]
        fields += [field for _, _, pair, _ in _LINK_PAIRS for field in pair]
        now = {(link.peer, field): int(getattr(link, field)) for link in links for field in fields}
        for (peer, field), value in now.items():
            key = named[peer], field
            self._totals[key] = self._totals.get(key, 0) + value - self._last.get((peer, field), 0)
        self._last = now


def _engine(stats: _core.EngineStats) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    ops = CounterMetricFamily("atoll_ops", "Collective ops by their end.", labels=["end"])
    ops.add_metric(["committed"], stats.ops_committed)
    ops.add_metric(["failed"], stats.ops_failed)
    ops.add_metric(["rerun"], stats.ops_rerun)
    yield ops
    payload = CounterMetricFamily(
        "atoll_payload_bytes", "Of collectives, sent, as their codec made them.", labels=["codec"]
    )
    for codec, sent in stats.payload_bytes.items():
        payload.add_metric([codec], sent)
    yield payload
    frames = CounterMetricFamily("atoll_frames", "Frames out of their time.", labels=["kind"])
    frames.add_metric(["stale"], stats.stale_frames)
    frames.add_metric(["early"], stats.early_frames)
    yield frames
    rejected = CounterMetricFamily(
        "atoll_connections_rejected", "Strangers, by what was wrong.", labels=["reason"]
    )
    for reason in _REJECTIONS:
        rejected.add_metric([reason], getattr(stats, f"rejected_{reason}"))
    yield rejected
    yield CounterMetricFamily(
        "atoll_protocol_errors", "Links ended for it.", value=stats.protocol_errors
    )
    yield CounterMetricFamily(
        "atoll_donated_bytes", "State served to joiners.", value=stats.donated_bytes
    )
    yield GaugeMetricFamily(
        "atoll_relay_connections",
        "Pairs of connections that this island carries for others that cannot reach each other.",
        value=stats.relay_connections,
    )
    yield CounterMetricFamily(
        "atoll_relay_connections_made", "Such pairs ever.", value=stats.relay_connections_made
    )
    yield CounterMetricFamily(
        "atoll_relay_bytes", "Carried for others, both ways.", value=stats.relay_bytes
    )
    yield CounterMetricFamily(
        "atoll_relay_refused", "Asked for or answered in vain.", value=stats.relay_refused
    )
    yield CounterMetricFamily(
        "atoll_shared_memory_failures",
        "Peers of this host that were linked with over the network all the same.",
        value=stats.shared_memory_failures,
    )
