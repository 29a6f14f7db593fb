"""From a coordinator's words to events, and from events of the job to the launcher's lines."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.pb import control_pb2 as pb
from atoll_launcher.islands.job import metrics_url
from atoll_launcher.watch.observer import departure_name, fetch_history, job_event
from atoll_launcher.watch.plain import plain_line
from fake_coordinator import FakeCoordinator
from launched import Launch


def peer(number: int, **report: Any) -> pb.PeerStatus:
    info = pb.PeerInfo(id=bytes([number]) * 16, island=f"island-{number}", order=number)
    return pb.PeerStatus(info=info, state="member", report=pb.Report(**report))


def test_a_round_is_completed_by_the_members_reports() -> None:
    peers = [
        peer(0, round=5, tokens_per_s=100, sync_s=0.1, sent_bytes=10, contributed=True),
        peer(1, round=5, tokens_per_s=50, sync_s=0.3, sent_bytes=30, contributed=False),
        peer(2, round=0, tokens_per_s=7),
    ]
    status = pb.StatusReply(epoch=4, peers=peers, members=[p.info.id for p in peers[:2]])
    event = job_event(pb.JobEvent(kind="round", round=5, loss=2.0, epoch=4), status)
    assert event is not None
    assert dict(event.fields) == {
        "epoch": 4,
        "round": 5,
        "loss": 2.0,
        "islands": 2,
        "contributed": ["island-0"],
        "tokens_per_s": 150.0,
        "sync_s": pytest.approx(0.2),
        "sent_bytes": 40,
    }


def test_what_members_report_now_is_not_told_of_rounds_long_past() -> None:
    status = pb.StatusReply(epoch=4, round=9, peers=[peer(0, round=9, tokens_per_s=100)])
    status.members.append(status.peers[0].info.id)
    past = job_event(pb.JobEvent(kind="round", round=6, loss=2.0, epoch=3), status)
    assert past is not None
    assert dict(past.fields) == {"epoch": 3, "round": 6, "loss": 2.0}
    assert plain_line(past) == "round 6  loss 2.000  view 3"
    recent = job_event(pb.JobEvent(kind="round", round=7, loss=2.0, epoch=4), status)
    assert recent is not None
    assert recent.fields["tokens_per_s"] == 100.0


def test_where_metrics_are_is_said_as_they_are_served() -> None:
    one = peer(1, metrics_port=9000)
    one.info.endpoints.add(host="10.0.0.7", port=5000)
    assert metrics_url(one, secure=True) == "https://10.0.0.7:9000/metrics"
    # Without certificates on loopback alone, whatever else listens elsewhere.
    assert metrics_url(one, secure=False) == "http://127.0.0.1:9000/metrics"
    one.info.endpoints[0].host = "127.0.0.1"
    assert metrics_url(one, secure=True) == "http://127.0.0.1:9000/metrics"


def test_departures_have_the_names_of_the_closed_list() -> None:
    assert departure_name(pb.DEPARTURE_CRASHED) == "crashed"
    assert departure_name(pb.DEPARTURE_UNSPECIFIED) == ""
    assert departure_name(99) == "reason 99"


def test_kinds_of_a_newer_coordinator_are_passed_over() -> None:
    assert job_event(pb.JobEvent(kind="eclipse"), None) is None


@pytest.mark.processes
def test_the_job_s_story_is_shown_and_written(
    launch: Launch, coordinator: FakeCoordinator, script: Callable[[str], str]
) -> None:
    coordinator.status.epoch = 1
    path = script("import signal\nsignal.pause()\n")
    launcher = launch("run", "--join", coordinator.address, path)
    pid = launcher.wait_for("started", island="island-1")["pid"]

    report = {"round": 12, "loss": 2.341, "tokens_per_s": 18_200, "sync_s": 0.12}
    coordinator.status.peers.append(peer(1, contributed=True, metrics_port=9, **report))
    coordinator.status.members.append(bytes([1]) * 16)
    coordinator.say(kind="joined", island="island-1", epoch=2)
    assert launcher.wait_for("report", island="island-1")["loss"] == 2.341
    launcher.wait_for("joined", island="island-1", epoch=2)
    coordinator.status.epoch = 2
    coordinator.say(kind="view", epoch=2)
    assert launcher.wait_for("view", epoch=2)["members"] == ["island-1"]
    coordinator.say(kind="round", round=12, loss=2.341, epoch=2)
    assert launcher.wait_for("round")["contributed"] == ["island-1"]

    os.kill(pid, signal.SIGKILL)
    launcher.wait_for("exited", island="island-1", signal=signal.SIGKILL)
    del coordinator.status.peers[:]
    coordinator.say(kind="left", island="island-1", reason=pb.DEPARTURE_CRASHED)
    assert launcher.wait_for("left")["signal"] == signal.SIGKILL
    coordinator.say(kind="stopping", message="the operator says so")
    launcher.wait_for("stopping")
    launcher.process.send_signal(signal.SIGTERM)
    _, out, _ = launcher.end()
    assert "island-1 joined, view 2\n" in out
    assert "round 12  loss 2.341  1 island  view 2  18.2k tokens/s  sync 0.12 s\n" in out
    assert "island-1 left: crashed (SIGKILL)\n" in out
    assert "island-1 serves metrics on http://127.0.0.1:9/metrics\n" in out


@pytest.mark.processes
def test_a_coordinator_that_goes_away_is_no_reason_to_stop(
    launch: Launch, coordinator: FakeCoordinator, script: Callable[[str], str]
) -> None:
    path = script("import signal\nsignal.pause()\n")
    launcher = launch("run", "--join", coordinator.address, path)
    launcher.wait_for("started")
    coordinator.say(kind="view", epoch=1)
    launcher.wait_for("view")
    coordinator.close()
    assert "does not answer; the islands go on" in launcher.wait_for("note")["message"]
    launcher.process.send_signal(signal.SIGINT)
    assert launcher.end()[0] == 130


@pytest.mark.processes
def test_a_coordinator_that_stops_its_job_is_not_missed(
    launch: Launch, coordinator: FakeCoordinator, script: Callable[[str], str]
) -> None:
    path = script("import signal\nsignal.pause()\n")
    launcher = launch("run", "--join", coordinator.address, path)
    launcher.wait_for("started")
    coordinator.say(kind="stopping", message="the operator says so")
    launcher.wait_for("stopping")
    coordinator.close()
    code, out, _ = launcher.end()
    assert (code, "does not answer" in out) == (5, False), out


@pytest.mark.processes
def test_who_joined_is_known_though_the_coordinator_died_before_it_said_so(
    launch: Launch, coordinator: FakeCoordinator, script: Callable[[str], str], tmp_path: Path
) -> None:
    """An island that was started again is ended with the job unless it has joined."""
    coordinator.status.epoch = 1
    path = script(
        "import os, signal, time\n"
        "me, again = os.environ['ATOLL_ISLAND'], os.environ['ATOLL_RESTART'] != '0'\n"
        "if me == 'island-2' and not again: signal.pause()\n"
        "while not os.path.exists(me): time.sleep(0.01)\n"
    )
    launcher = launch("run", "--join", coordinator.address, "--islands", "2", path)
    first = launcher.wait_for("started", island="island-2")["pid"]
    coordinator.status.peers.extend([peer(1), peer(2)])
    coordinator.status.members.extend([bytes([1]) * 16, bytes([2]) * 16])
    coordinator.say(kind="joined", island="island-1", epoch=2)
    coordinator.say(kind="joined", island="island-2", epoch=2)
    launcher.wait_for("joined", island="island-2")
    os.kill(first, signal.SIGKILL)
    launcher.wait_for("started", island="island-2", attempt=1)
    # Its second life has another id; nobody says that it joined.
    coordinator.status.peers[1].info.id = bytes([7]) * 16
    coordinator.status.members[1] = bytes([7]) * 16
    coordinator.status.peers[1].report.round = 3
    launcher.wait_for("report", island="island-2")
    (tmp_path / "island-1").touch()
    launcher.wait_for("exited", island="island-1", code=0)
    (tmp_path / "island-2").touch()
    ended = launcher.wait_for("exited", island="island-2")
    assert (ended["code"], ended["signal"]) == (0, 0)
    assert launcher.end()[0] == 0


@pytest.mark.processes
def test_a_launcher_that_joins_tells_the_present_and_not_the_past(
    launch: Launch, coordinator: FakeCoordinator, script: Callable[[str], str]
) -> None:
    coordinator.status.MergeFrom(pb.StatusReply(epoch=7, peers=[peer(0)], members=[b"\0" * 16]))
    for island in ("island-0", "island-4"):
        coordinator.say(kind="joined", island=island, epoch=1)
    coordinator.say(kind="round", round=1)
    launcher = launch("run", "--join", coordinator.address, script("import signal\nsignal.pause()"))
    assert launcher.wait_for("started")["island"] == "island-5"
    view = launcher.wait_for("view")
    assert (view["epoch"], view["members"]) == (7, ["island-0"])
    coordinator.say(kind="round", round=2, epoch=7)
    assert launcher.wait_for("round")["round"] == 2
    launcher.process.send_signal(signal.SIGTERM)
    launcher.end()
    assert not [e for e in launcher.events if e["kind"] == "joined"]


def test_the_history_ends_also_where_rounds_leave_no_pause() -> None:
    coordinator = FakeCoordinator()
    is_over = threading.Event()

    def train() -> None:
        number = 0
        while not is_over.wait(0.02):
            number += 1
            coordinator.say(kind="round", round=number)

    coordinator.say(kind="joined", island="island-7")
    training = threading.Thread(target=train)
    training.start()
    try:
        history = asyncio.run(asyncio.wait_for(fetch_history(coordinator.address), 10))
    finally:
        is_over.set()
        training.join()
        coordinator.close()
    assert history.joined == {"island-7"}
    assert history.last_number > 1
