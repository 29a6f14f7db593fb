"""What an island serves: every metric that docs/operations.md lists, read over HTTP."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import atoll
from atoll.membership.messages import View
from atoll.metrics import IslandMetrics

ROOT = Path(__file__).parents[2]


def listed() -> set[str]:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.split("## Metrics of an island")[1].split("\n## ")[0]
    return set(re.findall(r"`(atoll_\w+)`", section))


def test_every_listed_metric_is_served() -> None:
    with atoll.join({"metrics_port": 0, "checkpoint_url": "memory://metrics"}) as session:
        session.all_reduce(torch.ones(8)).wait(10)
        assert session.metrics_port
        with urllib.request.urlopen(
            f"http://127.0.0.1:{session.metrics_port}/metrics", timeout=10
        ) as answer:
            text = answer.read().decode()
    served = set(re.findall(r"^# TYPE (atoll_\w+)", text, re.M))
    assert listed() <= served
    assert "atoll_view_epoch 1.0" in text
    assert 'atoll_op_seconds_count{kind="all_reduce"} 1.0' in text


class Stats(SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        return {"fp32": 40, "int8": 10} if name == "payload_bytes" else 0


def link(number: int, *, times: int = 1, up: bool = True) -> Any:
    return SimpleNamespace(
        peer=bytes([number]) * 16,
        up=up,
        transport="tls",
        sent_bytes=10 * times,
        received_bytes=20 * times,
        sending_ns=times * 10**9,
        receiving_ns=2 * times * 10**9,
        connections=7 * times,
        pace_bytes_per_s=1e6 * times,
        repairs=3 * times,
        damaged_frames=5 * times,
        retransmitted=7 * times,
        round_trip_ns=times * 10**6,
    )


class Island:
    """Metrics of an island whose links and peers a test makes up."""

    def __init__(self) -> None:
        self.links: list[Any] = []
        self.names: dict[int, str] = {}
        self.metrics = IslandMetrics(
            job="reef", island="a", read_engine=self._stats, read_peers=self._membership
        )
        self.read = self.metrics.registry.get_sample_value

    def _stats(self) -> Any:
        return Stats(links=self.links)

    def _membership(self) -> Any:
        peers = [
            SimpleNamespace(id=bytes([number]) * 16, island=name)
            for number, name in self.names.items()
        ]
        return SimpleNamespace(view=View(), peers=peers)


def test_each_link_has_its_counters() -> None:
    """Those of the core, under the name of the island at its other end."""
    island = Island()
    island.links = [link(1), link(2, times=2, up=False)]
    island.names = {1: "b", 2: "c"}
    read = island.read
    one, two = {"peer": "b"}, {"peer": "c"}
    assert (read("atoll_link_up", one), read("atoll_link_up", two)) == (1, 0)
    assert read("atoll_link_transport", {**one, "transport": "tls"}) == 1
    assert read("atoll_link_transport", {**two, "transport": "tls"}) is None
    assert read("atoll_link_rtt_seconds", one) == 0.001
    assert read("atoll_link_connections", one) == 7
    assert read("atoll_link_pace_bytes_per_second", one) == 1e6
    for name, expected in {
        "atoll_link_repairs_total": (3, 6),
        "atoll_link_damaged_frames_total": (5, 10),
        "atoll_link_retransmitted_segments_total": (7, 14),
    }.items():
        assert (read(name, one), read(name, two)) == expected
    for name, sent, received in (("bytes", 10, 20), ("busy_seconds", 1, 2)):
        assert read(f"atoll_link_{name}_total", {**two, "direction": "sent"}) == 2 * sent
        assert read(f"atoll_link_{name}_total", {**two, "direction": "received"}) == 2 * received
    assert read("atoll_payload_bytes_total", {"codec": "int8"}) == 10


def test_an_island_that_comes_back_counts_on_and_makes_no_new_series() -> None:
    """Its peer has another id, and the core forgets the old one when the view changes."""
    island = Island()
    sent = "atoll_link_bytes_total", {"peer": "b", "direction": "sent"}
    island.names = {1: "b"}
    island.links = [link(1, times=4)]
    assert island.read(*sent) == 40
    island.names = {1: "b", 2: "b"}
    island.links = [link(1, times=5, up=False), link(2)]
    assert island.read(*sent) == 60
    assert island.read("atoll_link_up", {"peer": "b"}) == 1
    island.names = {2: "b"}
    island.links = [link(2, times=3)]
    assert island.read(*sent) == 80
    peers = {
        sample.labels["peer"]
        for metric in island.metrics.registry.collect()
        for sample in metric.samples
        if "peer" in sample.labels
    }
    assert peers == {"b"}


def test_a_round_is_computing_and_what_communication_costs() -> None:
    island = Island()
    for round_, (round_s, sync_s) in enumerate([(2.0, 0.5), (1.0, 0.9)], start=1):
        island.metrics.round_over(round_, 2.5, 100, round_s=round_s, sync_s=sync_s)
    assert island.read("atoll_compute_seconds_total") == pytest.approx(1.6)
    assert island.read("atoll_sync_seconds_total") == pytest.approx(1.4)
    assert island.read("atoll_compute_utilization_ratio") == pytest.approx(0.1)
    assert island.read("atoll_tokens_total") == 200
    assert island.read("atoll_round_seconds_count") == island.read("atoll_rounds_total") == 2
