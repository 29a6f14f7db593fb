"""The coordinator of a real job is killed at random: no round is lost, all hold the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import Etcd
from coordinator_kills import Options, Outcome, run

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(400)]


def check(outcome: Outcome, folder: Path) -> None:
    logs = "\n".join(path.read_text()[-3000:] for path in folder.glob("coordinator-*.log"))
    assert outcome.problems == [], logs
    assert sum(outcome.kills.values()) == 5


def test_with_sqlite_the_same_one_comes_back(tmp_path: Path) -> None:
    outcome = run(Options(kills=5, seed=3), tmp_path)
    check(outcome, tmp_path)
    assert outcome.idle_rounds > 0


@pytest.mark.skipif(
    not Etcd.installed(),
    reason="NOT TESTED: high availability needs `etcd`; on Debian: apt-get install etcd-server",
)
def test_with_etcd_another_one_leads(tmp_path: Path) -> None:
    check(run(Options(kills=5, seed=4, store="etcd"), tmp_path), tmp_path)
