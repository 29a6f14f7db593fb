"""What the coordinator counts, for Prometheus. A registry of its own: several may share a process.

Thread: the coordinator's; whoever answers a scrape reads.
"""

from __future__ import annotations

import math
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from atoll.membership.events import JobEvent, JobStatus
from atoll.membership.messages import NOTICES, Departure
from atoll.membership.view_change import CAUSES

REFUSALS = (
    *("silent", "plaintext", "old_tls", "tls", "timeout", "no_certificate", "authority", "expired"),
    *("job", "revoked", "name", "role", "token", "used", "request", "overload"),
)
"""What docs/security.md lists."""


class CoordinatorMetrics:
    """Gauges follow the machine's status, counters its totals since this process began."""

    def __init__(self, job: str) -> None:
        self.registry = CollectorRegistry()
        self._job = job
        self._seen: dict[tuple[str, str], int] = {}
        self._leader = self._gauge("leader", "1: this coordinator leads the job; 0: it stands by.")
        self._leader_changes = self._counter(
            "leader_changes", "Times that this coordinator saw another one take the lead."
        )
        self._epoch = self._gauge("epoch", "Number of the newest view.")
        self._members = self._gauge("members", "Islands of the newest view.")
        self._peers = self._gauge("peers", "Registered peers.")
        self._connected = self._gauge("connected_peers", "Registered peers with a stream.")
        self._relayed = self._gauge(
            "relayed_pairs", "Pairs of peers that reach each other through a third one."
        )
        self._streams = self._gauge("streams", "Open streams, registered or not.")
        self._round = self._gauge("round", "The last round that was reported as over.")
        self._loss = self._gauge("loss", "Mean loss of that round.")
        self._rounds = self._counter("rounds", "Rounds seen.")
        self._parity = self._counter("parity_failures", "Rounds after which members differed.")
        self._heals = self._counter("parity_heals", "States mended from the other members'.")
        self._lost_states = self._counter("state_losses", "Times that the shared state was lost.")
        self._notices = self._counter("notices", "What islands had to say, by kind.", "kind")
        self.malformed = self._counter("malformed_messages", "Messages that broke the format.")
        self._refused = self._counter(
            "refused_callers", "Connections and calls turned away, by why.", "reason"
        )
        self._changes = self._counter("view_changes", "Views issued, by why.", "reason")
        self._departures = self._counter("departures", "Islands gone, by why.", "reason")
        self._min_islands = self._gauge("min_islands", "That a first view takes.")
        # A counter that comes into being at 1 has never risen, to who asks for its increase.
        for reason in Departure:
            self._departures.labels(job, reason.value)
        for cause in CAUSES:
            self._changes.labels(job, cause)
        for kind in NOTICES:
            self._notices.labels(job, kind)
        for refusal in REFUSALS:
            self._refused.labels(job, refusal)

    def refused(self, reason: str) -> None:
        """Somebody was turned away."""
        self._refused.labels(self._job, reason).inc()

    def observe(self, status: JobStatus | None, streams: int, leader_changes: int) -> None:
        """Takes over what the machine knows; None: there is none, another coordinator leads."""
        self._leader.set(status is not None)
        before = self._seen.get(("leader", ""), 0)
        self._leader_changes.inc(leader_changes - before)
        self._seen["leader", ""] = leader_changes
        self._streams.set(streams)
        if status is None:
            for gauge in (
                self._epoch,
                self._members,
                self._peers,
                self._connected,
                self._relayed,
            ):
                gauge.set(0)
            return
        self._epoch.set(status.epoch)
        self._members.set(len(status.members) // max(1, status.shards))
        self._min_islands.set(status.min_islands)
        self._peers.set(len(status.peers))
        self._connected.set(sum(peer.connected for peer in status.peers))
        self._relayed.set(len(status.relayed))
        self._round.set(status.round)
        if math.isfinite(status.loss):
            self._loss.set(status.loss)
        self._follow(self._changes, "view", status.view_changes)
        self._follow(self._departures, "left", status.departures)

    def begin_term(self) -> None:
        """The machine is a new one, and its totals begin at zero."""
        self._seen = {key: total for key, total in self._seen.items() if key[0] == "leader"}

    def observe_event(self, event: JobEvent) -> None:
        """Counts what is told only once."""
        if event.kind == "round":
            self._rounds.inc()
        elif event.kind == "parity":
            self._parity.inc()
        elif event.kind == "state_lost":
            self._lost_states.inc()
        elif event.kind in NOTICES:
            self._notices.labels(self._job, event.kind).inc()
            if event.kind == "healed":
                self._heals.inc()

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
