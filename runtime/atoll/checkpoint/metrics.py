"""Prometheus metrics of the checkpoints that one island writes. docs/operations.md lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


class CheckpointMetrics:
    """Thread: any; the library's own locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.written = Counter(
            "atoll_checkpoints_written", "Complete and durable.", registry=registry
        )
        self.failed = Counter(
            "atoll_checkpoints_failed", "Given up for an error.", registry=registry
        )
        self.skipped = Counter(
            "atoll_checkpoints_skipped",
            "Due while the one before was still being written.",
            registry=registry,
        )
        self.damaged = Counter(
            "atoll_checkpoints_damaged", "Passed over while restoring.", registry=registry
        )
        self.seconds = Histogram(
            "atoll_checkpoint_seconds", "Of one write.", buckets=_SECONDS, registry=registry
        )
        self.bytes = Counter("atoll_checkpoint_bytes", "Written.", registry=registry)
        self.last_success = Gauge(
            "atoll_checkpoint_last_success_timestamp_seconds",
            "Unix time of the last one that this island completed.",
            registry=registry,
        )
        self.last_round = Gauge(
            "atoll_checkpoint_last_round", "The round of that one.", registry=registry
        )
