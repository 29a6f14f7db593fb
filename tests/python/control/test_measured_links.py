"""Links measured by real engines on loopback, and told to all members by a view."""

from __future__ import annotations

import threading
from typing import Any

import harness
import pytest

from atoll import _core

pytestmark = pytest.mark.processes

OPTIONS = {
    "min_islands": 3,
    "measure_settle_s": 0.1,
    "measure_slot_s": 0.1,
    "measure_long_slot_s": 0.1,
}


class Spy:
    """An engine that notes what it is told of links."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.topologies: dict[int, bytes] = {}

    def install(self, epoch: int, *rest: Any, topology: bytes) -> None:
        self.topologies[epoch] = topology
        self._engine.install(epoch, *rest, topology=topology)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def spy(peer: bytes, secret: bytes) -> Spy:
    return Spy(harness.engine(peer, secret))


def join(port: int, **options: Any) -> list[Any]:
    clients = [harness.client(port, name, engine_factory=spy, **options) for name in "abc"]
    for each in clients:
        each.start()
        each.ready()
    for each in clients:
        each.wait(lambda now: len(now.view.members) == 3, harness.TIMEOUT_S)
    return clients


def test_all_members_are_told_the_same_while_their_ops_go_on() -> None:
    with harness.Coordinator(**OPTIONS) as coordinator:
        clients = join(coordinator.port)
        told = threading.Event()
        ends: list[str] = []

        def work() -> None:
            while not told.is_set():
                ends.extend(harness.barrier(clients))

        worker = threading.Thread(target=work)
        worker.start()
        try:
            for each in clients:
                each.wait(lambda now: now.view.epoch == 2, harness.TIMEOUT_S)
        finally:
            told.set()
            worker.join(harness.TIMEOUT_S)
        assert set(ends) == {"ok"}
        changes = coordinator.ask(lambda server: server.machine.status(0.0).view_changes)
        assert changes == {"formed": 1, "links": 1}
        first, *others = (each.engine.topologies for each in clients)
        assert all(other == first for other in others)
        assert first[1] == b""
        topology = _core.Topology(first[2])
        for sender in range(3):
            for receiver in range(3):
                if sender != receiver:
                    rate, rtt_s = topology.link(sender, receiver)
                    assert rate > 1e6, "a loopback that is slower than this is none"
                    assert 0 < rtt_s < harness.TIMEOUT_S
        assert harness.barrier(clients) == ["ok"] * 3
        harness.close(clients)


def test_who_does_not_measure_is_not_measured_by_the_others_in_vain() -> None:
    with harness.Coordinator(**OPTIONS) as coordinator:
        clients = join(coordinator.port, probes=False)
        measured = coordinator.ask(lambda server: server.machine)
        for _ in range(100):
            if measured._state.measurements and measured._state.measurement is None:
                break
            assert harness.barrier(clients) == ["ok"] * 3
            threading.Event().wait(0.05)
        assert measured._state.measurements == 1
        assert coordinator.ask(lambda server: server.machine.view.epoch) == 1
        harness.close(clients)
