"""Prometheus metrics of one island. docs/operations.md lists them.

Bytes and seconds of links are read from the engine when somebody scrapes; the rest is counted as it
happens. Every session has a registry of its own, so several sessions fit into one process.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from atoll.metrics_now import NowCollector
from atoll.state.metrics import StateMetrics
from atoll.trust.exposure import is_loopback
from atoll.watching.site import metrics_page
from atoll.watching.web import WebServer

if TYPE_CHECKING:
    from atoll import _core
    from atoll.config import SessionSettings
    from atoll.control.membership import Membership
    from atoll.trust.identity import Identity

logger = logging.getLogger(__name__)

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROUND_BUCKETS_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


class IslandMetrics:
    """What one island serves under /metrics."""

    def __init__(
        self,
        *,
        job: str,
        island: str,
        read_engine: Callable[[], _core.EngineStats],
        read_peers: Callable[[], Membership],
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
            "atoll_sync_seconds",
            "Lost to communication: spent at the ends of rounds, waiting for others included.",
            registry=self.registry,
        )
        self.compute_seconds = Counter(
            "atoll_compute_seconds", "The rest of the rounds' time.", registry=self.registry
        )
        self.utilization = Gauge(
            "atoll_compute_utilization_ratio",
            "Computing, as a part of the last round's time.",
            registry=self.registry,
        )
        self.round_seconds = Histogram(
            "atoll_round_seconds",
            "From the end of a round to the end of the next.",
            buckets=_ROUND_BUCKETS_S,
            registry=self.registry,
        )
        self.refused = Counter(
            "atoll_contributions_refused",
            "Own contributions left out for not being finite.",
            registry=self.registry,
        )
        self.unpaired = Counter(
            "atoll_rounds_unpaired",
            "Rounds of pairs in which this island's partner was lost or late.",
            registry=self.registry,
        )
        self.latency = Histogram(
            "atoll_op_seconds",
            "From submit to commit.",
            ["kind"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.fence = Histogram(
            "atoll_fence_seconds",
            "At each change of view, how long no further op could start here (drain: one round "
            "trip to the coordinator when somebody joins or leaves; abort: after a loss).",
            ["kind"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.inexact = Counter(
            "atoll_codec_values",
            "Numbers that this island's encoders could not represent.",
            ["kind"],
            registry=self.registry,
        )
        self.all_reduces = Counter(
            "atoll_all_reduces",
            "All-reduces that committed, by the plan that was taken and the bytes of its chunks.",
            ["plan", "chunk_bytes"],
            registry=self.registry,
        )
        self.state = StateMetrics(self.registry)
        self.registry.register(NowCollector(read_engine, read_peers))
        self._server: WebServer | None = None

    def round_over(
        self, round_: int, loss: float, tokens: int, *, round_s: float, sync_s: float
    ) -> None:
        """Counts a round of this process. tokens: trained in it; sync_s: the part of its time that
        was not computing."""
        self.rounds.inc()
        self.tokens.inc(tokens)
        self.set_if_known("loss", loss)
        self.round.set(round_)
        self.round_seconds.observe(round_s)
        lost_s = min(sync_s, round_s)
        self.sync_seconds.inc(sync_s)
        self.compute_seconds.inc(round_s - lost_s)
        if round_s > 0:
            self.utilization.set(1 - lost_s / round_s)

    def set_if_known(self, gauge: str, value: float) -> None:
        """Sets `loss` or `validation`, unless the value is NaN."""
        if not math.isnan(value):
            getattr(self, gauge).set(value)

    def op_over(self, kind: str, outcome: _core.Outcome) -> None:
        """Counts an op that has ended, well or badly."""
        self.latency.labels(kind=kind).observe(outcome.elapsed_ns / 1e9)
        self.inexact.labels(kind="non_finite").inc(outcome.non_finite)
        self.inexact.labels(kind="saturated").inc(outcome.saturated)
        if outcome.plan:
            labels = {"plan": outcome.plan, "chunk_bytes": str(outcome.chunk_bytes)}
            self.all_reduces.labels(**labels).inc()

    def serve(self, settings: SessionSettings, identity: Identity | None) -> int:
        """Starts the HTTP server; returns its port. Raises ConfigError when the port is taken."""
        self._server = WebServer({"/metrics": lambda: metrics_page(self.registry)})
        host = settings.bind_host
        if identity is None and not is_loopback(host):
            logger.warning(
                "metrics are served on 127.0.0.1 only: beyond it they take certificates "
                "(docs/security.md)"
            )
            host = "127.0.0.1"
        return self._server.listen(host, settings.metrics_port, identity)

    def close(self) -> None:
        """Stops the HTTP server."""
        if self._server is not None:
            self._server.close()
            self._server = None
