"""Prometheus metrics of one island's shared state. docs/operations.md lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from atoll.state.transfer import Fetched


class StateMetrics:
    """Thread: any; the library's own locks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter

        self._bytes = Counter(
            "atoll_state_bytes",
            "Of the shared state, when this island fetched it: sent by donors, or here already.",
            ["source"],
            registry=registry,
        )
        self._seconds = Counter(
            "atoll_state_fetch_seconds", "Spent fetching the shared state.", registry=registry
        )
        self._corrupt = Counter(
            "atoll_state_corrupt_chunks", "Served with a wrong digest.", registry=registry
        )
        self.heals = Counter(
            "atoll_parity_heals",
            "Times that this island's state was wrong, and was mended from the others'.",
            registry=registry,
        )

    def fetched(self, fetched: Fetched) -> None:
        """Counts one fetch."""
        self._bytes.labels(source="fetched").inc(fetched.fetched_bytes)
        self._bytes.labels(source="kept").inc(fetched.kept_bytes)
        self._seconds.inc(fetched.seconds)
        self._corrupt.inc(fetched.corrupt)
