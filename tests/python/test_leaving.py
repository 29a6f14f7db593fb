"""SIGTERM as a notice: the first is told, a second ends the process, and so does the time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from atoll.leaving import ONE_NOTICE_S, leaving_after, reason_of
from atoll.membership.messages import Departure

pytestmark = pytest.mark.processes

HEAD = """
import os, signal, sys, time
from atoll.leaving import SigtermNotice
told = []
def drain(why):
    told.append(why)
    print("told", why, flush=True)
"""
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    begun: list[subprocess.Popen[str]] = []

    def run(text: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD + text],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in begun:
        with contextlib.suppress(ProcessLookupError):  # what it has forked, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


WAITS = """
notice = SigtermNotice(drain, {leave_s})
print("ready", flush=True)
while True:
    time.sleep(0.05)
    if told and time.monotonic() - notice._told_s > {after_s}:
        print("later", flush=True)
        told.clear()
"""


def test_the_first_is_a_notice_and_one_soon_after_is_the_same(start: Start) -> None:
    process = start(WAITS.format(leave_s=30, after_s=ONE_NOTICE_S + 0.1))
    process.send_signal(signal.SIGTERM)
    assert line_of(process) == "told SIGTERM\n"
    process.send_signal(signal.SIGTERM)  # a batch system and the launcher both
    assert line_of(process) == "later\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (-signal.SIGTERM, "")


def test_when_the_time_is_over_the_process_ends(start: Start) -> None:
    process = start(WAITS.format(leave_s=0.3, after_s=60))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "ATOLL_LEAVE_S ago" in err


def test_a_forked_child_is_ended_by_the_first_however_soon_it_comes(start: Start) -> None:
    process = start(
        "notice = SigtermNotice(drain, 30)\n"
        "print('ready', flush=True)\n"
        "for number in range(200):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        while True: time.sleep(1)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    out, _ = process.communicate(timeout=30)
    assert out == "told SIGTERM\n"  # this process takes it as a notice all the while


def test_a_handler_of_the_program_stays(start: Start) -> None:
    process = start(
        "def own(number, frame):\n"
        "    print('own', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, own)\n"
        "notice = SigtermNotice(drain, 30)\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "own\n")


def test_closed_or_not_wanted_it_ends_the_process_as_ever(start: Start) -> None:
    for text in ("SigtermNotice(drain, 30).close()\n", "SigtermNotice(drain, 0)\n"):
        process = start(f"{text}print('ready', flush=True)\nwhile True: time.sleep(1)\n")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("leaving", [False, True])
def test_the_island_leaves_when_its_batches_ended_because_it_is_to(leaving: bool) -> None:
    left: list[str] = []
    batches = leaving_after(iter([1, 2]), lambda: leaving, lambda: left.append("left"))
    assert list(batches) == [1, 2]
    assert left == (["left"] if leaving else [])


def test_whoever_was_told_to_leave_was_drained_however_the_script_ends() -> None:
    assert reason_of(None, False) is Departure.FINISHED
    assert reason_of(RuntimeError(), False) is Departure.CRASHED
    assert reason_of(None, True) is reason_of(RuntimeError(), True) is Departure.DRAINED
