"""Real processes on loopback: killed, stopped, restarted. Tests wait for lines, never for time."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

from ports import free_port

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
LINE_S = 30.0


class Running:
    """A process and its lines, read by a thread so that waiting for one has a deadline."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=HERE,
        )
        self.lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put("")

    def until(self, wanted: Callable[[str], bool]) -> str:
        while True:
            line = self.lines.get(timeout=LINE_S)
            assert line, f"{self.process.args} ended"
            if wanted(line):
                return line

    def until_epoch(self, epoch: int) -> int:
        """Returns the number of the first op that was committed in this view or a later one."""
        line = self.until(lambda line: line[0].isdigit() and int(line.split()[1]) >= epoch)
        return int(line.split()[0])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        return self.process.wait(LINE_S)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*arguments: str) -> Running:
        running.append(Running(*arguments))
        return running[-1]

    yield begin
    for each in running:
        each.end(signal.SIGKILL)


def coordinator(start: Callable[..., Running], port: int, *more: str) -> Running:
    running = start(
        "-m", "atoll.coordinator", "--listen", f"127.0.0.1:{port}", "--job", "reef", *more
    )
    running.until(lambda line: "listening" in line)
    return running


def islands(start: Callable[..., Running], port: int, names: str) -> list[Running]:
    running = [start("island.py", str(port), name) for name in names]
    for each in running:
        each.until_epoch(1)
    return running


def test_a_killed_island_is_missed_and_its_successor_joins(start: Callable[..., Running]) -> None:
    port = free_port()
    coordinator(start, port, "--min-islands", "3")
    a, b, c = islands(start, port, "abc")
    c.end(signal.SIGKILL)
    assert a.until_epoch(2) > 0
    assert b.until_epoch(2) > 0
    again = start("island.py", str(port), "c")
    again.until_epoch(3)
    a.until_epoch(3)


def test_a_stopped_island_is_silent_and_told_so_when_it_wakes(
    start: Callable[..., Running],
) -> None:
    port = free_port()
    coordinator(start, port, "--min-islands", "2")
    a, b = islands(start, port, "ab")
    a.process.send_signal(signal.SIGSTOP)  # the older one: it is not kept for its age
    b.until_epoch(2)
    a.process.send_signal(signal.SIGCONT)
    assert a.until(lambda line: line.startswith("end")) == "end Expelled"


def test_a_polite_leaver_is_gone_in_good_order(start: Callable[..., Running]) -> None:
    port = free_port()
    running = coordinator(start, port, "--min-islands", "2")
    a, b = islands(start, port, "ab")
    assert b.process.stdin is not None
    b.process.stdin.close()
    assert b.process.wait(LINE_S) == 0
    a.until_epoch(2)
    assert "in good order" in running.until(lambda line: "b left" in line)


def test_a_killed_coordinator_stops_no_op_and_its_successor_goes_on(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    port, store = free_port(), str(tmp_path / "job.db")
    more = ("--min-islands", "2", "--store", store)
    first = coordinator(start, port, *more)
    a, b = islands(start, port, "ab")
    first.end(signal.SIGKILL)
    seen = a.until_epoch(1)
    assert a.until(lambda line: int(line.split()[0]) > seen + 100).endswith(" 1")
    coordinator(start, port, *more)
    c = start("island.py", str(port), "c")
    c.until_epoch(2)
    a.until_epoch(2)
    b.until_epoch(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_coordinator_that_is_told_to_end_tells_its_islands(
    start: Callable[..., Running], number: signal.Signals
) -> None:
    port = free_port()
    running = coordinator(start, port, "--metrics-port", "0")
    (a,) = islands(start, port, "a")
    assert running.end(number) == 0
    assert a.until(lambda line: line.startswith("end")) == "end JobStopped"


def test_a_port_in_use_is_one_line(start: Callable[..., Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = start("-m", "atoll.coordinator", "--listen", f"127.0.0.1:{port}")
        line = running.until(lambda line: line.startswith("error"))
        assert f"127.0.0.1:{port}: in use" in line
        assert running.process.wait(LINE_S) == 2
