"""What the coordinator counts, for Prometheus. A registry of its own: several may share a process.

Thread: the coordinator's; prometheus-client's server thread reads.
"""

from __future__ import annotations

import math
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from atoll.errors import ConfigError
from atoll.membership.events import JobEvent, JobStatus


class CoordinatorMetrics:
    """Gauges follow the machine's status, counters its totals since this process began."""

    def __init__(self, job: str) -> None:
        self.registry = CollectorRegistry()
        self._job = job
        self._server: Any = None
        self._thread: Any = None
        self._seen: dict[tuple[str, str], int] = {}
        self._epoch = self._gauge("epoch", "Number of the newest view.")
        self._members = self._gauge("members", "Members of the newest view.")
        self._peers = self._gauge("peers", "Registered peers.")
        self._connected = self._gauge("connected_peers", "Registered peers with a stream.")
        self._streams = self._gauge("streams", "Open streams, registered or not.")
        self._round = self._gauge("round", "The last round that was reported as over.")
        self._loss = self._gauge("loss", "Mean loss of that round.")
        self._rounds = self._counter("rounds", "Rounds seen.")
        self._parity = self._counter("parity_failures", "Rounds after which members differed.")
        self._lost_states = self._counter("state_losses", "Times that the shared state was lost.")
        self.malformed = self._counter("malformed_messages", "Messages that broke the format.")
        self._changes = self._counter("view_changes", "Views issued, by why.", "reason")
        self._departures = self._counter("departures", "Peers gone, by why.", "reason")

    def observe(self, status: JobStatus, streams: int) -> None:
        """Takes over what the machine knows."""
        self._epoch.set(status.epoch)
        self._members.set(len(status.members))
        self._peers.set(len(status.peers))
        self._connected.set(sum(peer.connected for peer in status.peers))
        self._streams.set(streams)
        self._round.set(status.round)
        if math.isfinite(status.loss):
            self._loss.set(status.loss)
        self._follow(self._changes, "view", status.view_changes)
        self._follow(self._departures, "left", status.departures)

    def observe_event(self, event: JobEvent) -> None:
        """Counts what is told only once."""
        if event.kind == "round":
            self._rounds.inc()
        elif event.kind == "parity":
            self._parity.inc()
        elif event.kind == "state_lost":
            self._lost_states.inc()

    def serve(self, port: int, host: str) -> int:
        """Serves over HTTP and returns the port. Raises ConfigError when it cannot be used."""
        try:
            self._server, self._thread = start_http_server(port, host, registry=self.registry)
        except OSError as error:
            raise ConfigError(f"metrics on {host}:{port}: {error.strerror or error}") from None
        return int(self._server.server_port)

    def close(self) -> None:
        """Stops serving; idempotent."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(f"atoll_coordinator_{name}", text, ["job"], registry=self.registry)
        return gauge.labels(self._job)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(
            f"atoll_coordinator_{name}", text, ["job", *labels], registry=self.registry
        )
        return counter if labels else counter.labels(self._job)

    def _follow(self, counter: Counter, kind: str, totals: Any) -> None:
        for reason, total in totals.items():
            before = self._seen.get((kind, reason), 0)
            if total > before:
                counter.labels(self._job, reason).inc(total - before)
                self._seen[kind, reason] = total
