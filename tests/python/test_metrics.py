"""What an island serves: every metric that docs/operations.md lists, read over HTTP."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import torch

import atoll

ROOT = Path(__file__).parents[2]


def listed() -> set[str]:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.split("## Metrics of an island")[1].split("\n## ")[0]
    return set(re.findall(r"`(atoll_\w+)`", section))


def test_every_listed_metric_is_served() -> None:
    with atoll.join({"metrics_port": 0}) as session:
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
