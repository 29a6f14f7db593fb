"""`atoll top`: what it draws, on a terminal and elsewhere."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from atoll.pb import control_pb2 as pb
from atoll_launcher.watch.dashboard import Dashboard
from atoll_launcher.watch.links import Link
from atoll_launcher.watch.top_view import Known, picture
from fake_coordinator import FakeCoordinator
from launched import DEADLINE_S


def a_status(islands: int) -> pb.StatusReply:
    ids = [bytes([number]) * 16 for number in range(islands)]
    return pb.StatusReply(
        job="lagoon",
        epoch=7,
        members=ids[:-1],
        round=12,
        loss=2.341,
        uptime_s=61.0,
        peers=[
            pb.PeerStatus(
                info=pb.PeerInfo(id=one, island=f"palm-{number}", order=islands - number),
                state="registered" if one == ids[-1] else "member",
                heard_ago_s=0.4,
                report=pb.Report(round=12, loss=2.3, tokens_per_s=9100.0, sync_s=0.12),
            )
            for number, one in enumerate(ids)
        ],
    )


def drawn(known: Known, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=100, height=height, force_terminal=False)
    console.print(picture(known, width=100, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def known(islands: int, **more: object) -> Known:
    dashboard = Dashboard(
        job="lagoon",
        started_at_s=0.0,
        address="coord:7000",
        losses=(3.0, 2.7, 2.341),
        lines=("palm-9 left: drained", "view 7: palm-0, palm-1"),
    )
    return Known(dashboard=dashboard, status=a_status(islands), **more)  # type: ignore[arg-type]


def test_the_picture_has_islands_links_rates_loss_and_events() -> None:
    rates = {bytes([0]) * 16: 2.0e6, bytes([1]) * 16: 1.0e6}
    links = [
        Link(source="palm-0", target="palm-1", rate_bytes_per_s=5.0e6, rtt_s=0.081),
        Link(source="palm-1", target="palm-0", rate_bytes_per_s=1.0e6, rtt_s=0.081),
    ]
    text = drawn(known(3, sent_bytes_per_s=rates, links=links))
    lines = text.splitlines()
    assert "lagoon  coord:7000" in lines[0]
    assert "round 12   view 7   2 members   27.3k tokens/s   3 MB/s sent   up 01:01" in lines[1]
    assert "loss 2.341 █▅▁" in lines[2]
    rows = [line.split() for line in lines if line.startswith("palm-")]
    assert rows[0][:4] == ["palm-0", "member", "12", "2.300"]
    assert [row[0] for row in rows[:3]] == ["palm-0", "palm-1", "palm-2"], "members by rank"
    assert rows[2][1] == "registered"
    slowest = [line for line in lines if "->" in line]
    assert slowest[0].split() == ["palm-1", "->", "palm-0", "1", "MB/s", "81.0", "ms"]
    assert lines[-2:] == ["palm-9 left: drained", "view 7: palm-0, palm-1"]
    assert "DOES NOT ANSWER" not in text
    assert "DOES NOT ANSWER" in drawn(known(3, away=True))


def test_a_hundred_islands_fit_on_any_terminal() -> None:
    text = drawn(known(100), height=24)
    assert len(text.splitlines()) <= 24
    assert "islands more" in text
    assert "palm-9 left: drained" in text


@pytest.mark.processes
def test_on_a_terminal_q_ends_it_and_gives_the_terminal_back(coordinator: FakeCoordinator) -> None:
    coordinator.status.CopyFrom(a_status(3))
    terminal, its_end = pty.openpty()
    before = termios.tcgetattr(terminal)
    process = subprocess.Popen(
        [sys.executable, "-m", "atoll_launcher", "top", coordinator.address],
        stdin=its_end, stdout=its_end, stderr=subprocess.STDOUT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    )  # fmt: skip
    os.close(its_end)
    seen = b""
    while b"palm-2" not in seen:
        ready, _, _ = select.select([terminal], [], [], DEADLINE_S)
        assert ready, seen
        seen += os.read(terminal, 65536)
    os.write(terminal, b"q")
    while b"\x1b[?1049l" not in seen:  # back from the other screen
        ready, _, _ = select.select([terminal], [], [], DEADLINE_S)
        assert ready, seen
        seen += os.read(terminal, 65536)
    assert process.wait(DEADLINE_S) == 0
    assert termios.tcgetattr(terminal) == before
    os.close(terminal)


@pytest.mark.processes
def test_elsewhere_it_prints_lines_until_ctrl_c(coordinator: FakeCoordinator) -> None:
    coordinator.status.CopyFrom(a_status(3))
    coordinator.say(kind="left", island="palm-9", reason=pb.DEPARTURE_DRAINED, epoch=7)
    process = subprocess.Popen(
        [sys.executable, "-m", "atoll_launcher", "top", coordinator.address],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line == "palm-9 left: drained\n":
            break
    else:
        raise AssertionError("the event never came")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "\x1b" not in rest
