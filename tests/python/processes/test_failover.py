"""Several coordinators of one job with a real etcd: killed, stopped and woken; etcd itself away."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import PATIENCE_S, Cluster, Etcd

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not Etcd.installed(),
        reason="NOT TESTED: high availability needs `etcd`; on Debian: apt-get install etcd-server",
    ),
]

PAUSE_S = 0.005  # between two ops: the machine is for the coordinators, too
ISLAND = Path(__file__).parent.parent / "control" / "island.py"


class Island:
    """Runs barriers, one after the other; `last` is the number of the newest and its view."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        ports = ",".join(map(str, cluster.ports))
        self.process = subprocess.Popen(
            [sys.executable, str(ISLAND), ports, name, str(PAUSE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.last = (-1, 0)
        self.sequences: list[int] = []
        self.ended = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line[0].isdigit():
                sequence, epoch = line.split()
                self.last = (int(sequence), int(epoch))
                self.sequences.append(int(sequence))
            else:
                self.ended = line.strip()

    def gaps(self) -> list[int]:
        """Numbers of ops that did not follow the one before."""
        told = self.sequences.copy()
        return [number for index, number in enumerate(told) if number != index]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Stage:
    """A job with three coordinators and some islands."""

    def __init__(self, folder: Path, *, etcds: int = 1) -> None:
        self.etcd = Etcd(folder, etcds)
        store = f"etcd://{self.etcd.addresses}/failover"
        self.cluster = Cluster(folder, store, count=3, min_islands=2)
        self.cluster.start_all()
        self.islands: list[Island] = []
        for name in "ab":
            self.join(name)
        self.until(lambda: all(island.last[1] > 0 for island in self.islands), "a first view")

    def join(self, name: str) -> Island:
        self.islands.append(Island(self.cluster, name))
        return self.islands[-1]

    def until(self, happened: Callable[[], bool], what: str) -> None:
        self.cluster.wait(happened, what)
        assert not any(island.ended for island in self.islands), [i.ended for i in self.islands]

    def goes_on(self) -> None:
        """All islands commit more ops."""
        before = [island.last[0] for island in self.islands]
        self.until(
            lambda: all(i.last[0] > n + 20 for i, n in zip(self.islands, before, strict=True)),
            "more ops",
        )

    def connected(self) -> bool:
        """Whether the leader has a stream from every island."""
        leader = self.cluster.leader()
        status = None if leader is None else self.cluster.status(leader)
        if status is None or len(status.peers) < len(self.islands):
            return False
        return all(peer.heard_ago_s < 1.5 for peer in status.peers)

    def lost(self) -> str:
        """What coordinators said of islands that left."""
        logs = [self.cluster.log(number) for number in range(3)]
        return "\n".join(line for log in logs for line in log.splitlines() if " left (" in line)

    def close(self) -> None:
        for island in self.islands:
            island.kill()
        self.cluster.close()
        self.etcd.kill()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def test_a_standby_leads_when_the_leader_is_killed_and_islands_follow(stage: Stage) -> None:
    """Ten times; the median and the worst are said with `pytest -s`."""
    cluster = stage.cluster
    took_s = []
    for _ in range(10):
        leader = cluster.wait_leader()
        cluster.kill(leader)
        began_s = time.monotonic()
        cluster.wait_leader(other_than=leader)
        took_s.append(time.monotonic() - began_s)
        stage.until(stage.connected, "the islands to follow")
        cluster.start(leader)
    print(f"standby leads after: median {statistics.median(took_s):.2f} s, worst {max(took_s):.2f}")
    stage.goes_on()
    assert not stage.lost(), "a change of leaders cost an island"
    for island in stage.islands:
        assert not island.gaps(), "an op was lost"
    joiner = stage.join("c")
    stage.until(lambda: joiner.last[0] > 0, "a joiner under the new leader")


def test_a_leader_that_was_stopped_past_its_lease_is_fenced(stage: Stage) -> None:
    cluster = stage.cluster
    old = cluster.wait_leader()
    cluster.stop(old, signal.SIGSTOP)
    new = cluster.wait_leader(other_than=old)
    joiner = stage.join("c")
    stage.until(lambda: joiner.last[0] > 0, "a join under the new leader")
    seen = len(cluster.log(old))
    cluster.stop(old, signal.SIGCONT)
    cluster.wait(lambda: "leads no more" in cluster.log(old)[seen:], "the old leader to notice")
    cluster.wait(
        lambda: f"the leader is at 127.0.0.1:{cluster.ports[new]}" in cluster.log(old),
        "the old leader to stand by",
    )
    said = cluster.log(old)[seen:]
    assert " left (" not in said, "the old leader decided something"
    assert " INFO view " not in said
    status = cluster.status(old)
    assert status is not None
    assert status.standby
    assert status.leader == f"127.0.0.1:{cluster.ports[new]}"
    assert cluster.leader() == new
    stage.goes_on()
    assert not stage.lost(), "islands were given up while they were on the stopped leader"


def test_training_goes_on_without_etcd_and_membership_waits(stage: Stage) -> None:
    cluster = stage.cluster
    cluster.wait_leader()
    stage.etcd.kill()
    cluster.wait(lambda: cluster.leader() is None, "the leader to give up")
    stage.goes_on()
    stage.goes_on()
    joiner = stage.join("c")
    for number in range(3):
        stage.until(lambda: "etcd does not answer" in cluster.log(number), "a word about etcd")  # noqa: B023
    time.sleep(2.0)  # several attempts more
    assert joiner.last == (-1, 0)
    stage.until(lambda: all(i.last[0] > 0 for i in stage.islands[:2]), "ops without etcd")
    before = [island.last[0] for island in stage.islands[:2]]
    stage.etcd.start()
    stage.until(lambda: joiner.last[0] > 0, "the joiner, once etcd is back")
    for island, sequence in zip(stage.islands[:2], before, strict=True):
        assert island.last[0] > sequence
        assert not island.gaps()
    for number in range(3):
        stage.until(lambda: "the store answers again" in cluster.log(number), "word of it")  # noqa: B023
        log = cluster.log(number)
        assert log.count("etcd does not answer") == 1, log
        assert log.count("the store answers again") == 1, log
        assert "islands train on" in log
    assert not stage.lost()


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_member_of_etcd_that_is_lost_costs_nothing(tmp_path: Path, how: str) -> None:
    """Of three. The coordinators go to another one; leadership and state are in all of them."""
    stage = Stage(tmp_path, etcds=3)
    try:
        cluster = stage.cluster
        for number in range(3):
            cluster.wait_leader()
            if how == "killed":
                stage.etcd.kill_member(number)
            else:
                stage.etcd.signal_member(number, signal.SIGSTOP)
            time.sleep(2.5)  # more than a lease
            stage.goes_on()
            cluster.wait_leader()
            if how == "killed":
                stage.etcd.start_member(number)
            else:
                stage.etcd.signal_member(number, signal.SIGCONT)
        joiner = stage.join("c")
        stage.until(lambda: joiner.last[0] > 0, "a joiner after all that")
        assert not stage.lost()
        for island in stage.islands[:2]:
            assert not island.gaps()
    finally:
        stage.close()


def test_a_leader_that_is_told_to_end_hands_over_at_once(stage: Stage) -> None:
    cluster = stage.cluster
    leader = cluster.wait_leader()
    process = cluster.processes[leader]
    assert process is not None
    process.send_signal(signal.SIGTERM)
    new = cluster.wait_leader(other_than=leader)
    assert process.wait(PATIENCE_S) == 0
    cluster.processes[leader] = None
    stage.until(stage.connected, "the islands to follow")
    stage.goes_on()
    assert not stage.lost()
    assert new != leader


def test_status_and_metrics_say_who_leads(stage: Stage) -> None:
    cluster = stage.cluster
    leader = cluster.wait_leader()
    shown = subprocess.run(
        [sys.executable, "-m", "atoll_launcher.main", "status", cluster.addresses],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert f"led by 127.0.0.1:{cluster.ports[leader]}" in shown
    assert "etcd://" in shown
    for number in range(3):
        with urllib.request.urlopen(cluster.metrics(number), timeout=5) as page:
            text = page.read().decode()
        assert f'atoll_coordinator_leader{{job="reef"}} {float(number == leader)}' in text
        assert 'atoll_coordinator_leader_changes_total{job="reef"} 0.0' in text
    cluster.kill(leader)
    new = cluster.wait_leader(other_than=leader)

    def counted() -> bool:
        with urllib.request.urlopen(cluster.metrics(new), timeout=5) as page:
            text = page.read().decode()
        return (
            'atoll_coordinator_leader_changes_total{job="reef"} 1.0' in text
            and 'atoll_coordinator_leader{job="reef"} 1.0' in text
        )

    cluster.wait(counted, "the change to be counted")
