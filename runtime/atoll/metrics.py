"""Prometheus metrics of one island. docs/operations.md lists them.

Bytes and seconds of links are read from the engine when somebody scrapes; the rest is counted as it
happens. Every session has a registry of its own, so several sessions fit into one process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from atoll.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client.core import Metric

    from atoll import _core
    from atoll.membership.messages import View

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class IslandMetrics:
    """What one island serves under /metrics."""

    def __init__(
        self,
        *,
        job: str,
        island: str,
        read_engine: Callable[[], _core.EngineStats],
        read_view: Callable[[], View],
    ) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

        self.registry = CollectorRegistry()
        about = Info("atoll_island", "What this is.", registry=self.registry)
        about.info({"job": job, "island": island})
        self.rounds = Counter("atoll_rounds", "Outer rounds committed.", registry=self.registry)
        self.round = Gauge("atoll_round", "The job's rounds so far.", registry=self.registry)
        self.loss = Gauge("atoll_train_loss", "Mean of the last round.", registry=self.registry)
        self.validation = Gauge("atoll_validation_loss", "Last reported.", registry=self.registry)
        self.tokens = Counter("atoll_tokens", "Trained by this island.", registry=self.registry)
        self.sync_seconds = Counter(
            "atoll_sync_seconds", "Spent at the ends of rounds.", registry=self.registry
        )
        self.refused = Counter(
            "atoll_contributions_refused",
            "Own contributions left out for not being finite.",
            registry=self.registry,
        )
        self.latency = Histogram(
            "atoll_op_seconds",
            "From submit to commit.",
            ["kind"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_NowCollector(read_engine, read_view))
        self._server: WSGIServer | None = None

    def set_if_known(self, gauge: str, value: float) -> None:
        """Sets `loss` or `validation`, unless the value is NaN."""
        if not math.isnan(value):
            getattr(self, gauge).set(value)

    def serve(self, port: int, host: str) -> int:
        """Starts the HTTP server; returns its port. Raises ConfigError when the port is taken."""
        from prometheus_client import start_http_server

        try:
            self._server, _ = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise ConfigError(
                f"metrics port {port} on {host}: {error.strerror}; choose another with "
                "ATOLL_METRICS_PORT (0 takes any)"
            ) from None
        return int(self._server.server_port)

    def close(self) -> None:
        """Stops the HTTP server."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _NowCollector:
    """What is read at the moment of a scrape: the view, the engine's counters."""

    def __init__(
        self, read_engine: Callable[[], _core.EngineStats], read_view: Callable[[], View]
    ) -> None:
        self._read_engine = read_engine
        self._read_view = read_view

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        view = self._read_view()
        yield GaugeMetricFamily("atoll_view_epoch", "Of the installed view.", value=view.epoch)
        yield GaugeMetricFamily("atoll_view_members", "Members of it.", value=len(view.members))
        stats = self._read_engine()
        sent = CounterMetricFamily(
            "atoll_link_bytes", "At the socket.", labels=["peer", "direction"]
        )
        busy = CounterMetricFamily(
            "atoll_link_busy_seconds",
            "With something to send, or inside a frame being received.",
            labels=["peer", "direction"],
        )
        up = GaugeMetricFamily("atoll_link_up", "1 while the link is up.", labels=["peer"])
        for link in stats.links:
            peer = link.peer.hex()[:8]
            sent.add_metric([peer, "sent"], link.sent_bytes)
            sent.add_metric([peer, "received"], link.received_bytes)
            busy.add_metric([peer, "sent"], link.sending_ns / 1e9)
            busy.add_metric([peer, "received"], link.receiving_ns / 1e9)
            up.add_metric([peer], 1.0 if link.up else 0.0)
        yield from (sent, busy, up)
        ops = CounterMetricFamily("atoll_ops", "Collective ops by their end.", labels=["end"])
        ops.add_metric(["committed"], stats.ops_committed)
        ops.add_metric(["failed"], stats.ops_failed)
        ops.add_metric(["rerun"], stats.ops_rerun)
        yield ops
        frames = CounterMetricFamily("atoll_frames", "Frames out of their time.", labels=["kind"])
        frames.add_metric(["stale"], stats.stale_frames)
        frames.add_metric(["early"], stats.early_frames)
        yield frames
        rejected = CounterMetricFamily(
            "atoll_connections_rejected", "Strangers, by what was wrong.", labels=["reason"]
        )
        rejected.add_metric(["bad_hello"], stats.rejected_bad_hello)
        rejected.add_metric(["garbage"], stats.rejected_garbage)
        rejected.add_metric(["timeout"], stats.rejected_timeout)
        rejected.add_metric(["overload"], stats.rejected_overload)
        yield rejected
        yield CounterMetricFamily(
            "atoll_protocol_errors", "Links ended for it.", value=stats.protocol_errors
        )
        yield CounterMetricFamily(
            "atoll_donated_bytes", "State served to joiners.", value=stats.donated_bytes
        )
