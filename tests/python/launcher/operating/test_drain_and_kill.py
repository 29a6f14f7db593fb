"""What an operator orders: drain, kill, logs; and SIGTERM. Real islands that train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launched import DEADLINE_S, Launch, Launcher

pytestmark = pytest.mark.processes

WORKER = Path(__file__).parents[2] / "processes" / "worker.py"
# Rounds of two steps, and far more of them than a test lasts.
ENDLESS = (
    str(WORKER), "--elements=64", "--samples=1000000", "--batch-size=1", "--step-s=0.02",
)  # fmt: skip


def atoll(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "atoll_launcher", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, **options)


def training(launch: Launch, *options: str) -> tuple[Launcher, str]:
    """A job of two islands that has rounds behind it."""
    job = launch("run", "--standalone", "--islands=2", *options, *ENDLESS)
    address = job.wait_for("listening")["address"]
    job.wait_for("round", islands=2)
    return job, address


def pid_of(job: Launcher, island: str) -> int:
    return next(
        e["pid"] for e in reversed(job.events) if e["kind"] == "started" and e["island"] == island
    )


def test_an_operator_reads_logs_drains_and_kills(launch: Launch, tmp_path: Path) -> None:
    job, address = training(launch)
    follower = subprocess.Popen(
        [sys.executable, "-m", "atoll_launcher", "logs", address, "-f", "-n1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert follower.stdout.readline().startswith("island-")
    logs = atoll("logs", address, "island-1", "-n", "3")
    assert (logs.returncode, logs.stderr) == (0, "")
    assert "island-1 | === " in logs.stdout
    assert "island-0" not in logs.stdout

    wrong = atoll("drain", address, "island-l")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no island 'island-l', did you mean 'island-1'?" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    assert atoll("kill", address, "nobody").returncode == 2
    assert atoll("logs", address, "nobody").returncode == 2

    asked = atoll("drain", address, "island-1", "--why", "its disk is full")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert "its disk is full" in job.wait_for("draining", island="island-1")["message"]
    assert job.wait_for("left", island="island-1")["reason"] == "drained"
    assert job.wait_for("exited", island="island-1")["code"] == 0
    assert job.wait_for("gave_up")["reason"] == "it was drained"
    job.wait_for("round", islands=1)
    status = json.loads(atoll("status", address, "--json").stdout)
    assert [(d["island"], d["reason"]) for d in status["departed"]] == [("island-1", "drained")]
    assert "island-1 left" in atoll("status", address).stdout

    os.kill(pid_of(job, "island-0"), signal.SIGSTOP)  # a process that could not end by itself
    assert atoll("kill", address, "island-0").returncode == 0
    assert job.wait_for("left", island="island-0")["reason"] == "killed"
    assert job.wait_for("exited", island="island-0")["signal"] == signal.SIGKILL
    code, _, err = job.end()
    assert (code, err.count("\n")) == (4, 1)
    assert not [e for e in job.events if e["kind"] == "restarting"]
    follower.communicate(timeout=DEADLINE_S)


def test_sigterm_to_the_launcher_is_a_polite_end(launch: Launch) -> None:
    job, _ = training(launch)
    job.process.send_signal(signal.SIGTERM)
    code, out, err = job.end()
    assert (code, err) == (0, "")
    left = {e["island"]: e["reason"] for e in job.events if e["kind"] == "left"}
    assert left == {"island-0": "drained", "island-1": "drained"}
    assert [e["code"] for e in job.events if e["kind"] == "exited"] == [0, 0]
    assert "finished: left politely" in out


def test_sigterm_to_an_island_takes_it_out_politely(launch: Launch) -> None:
    job, _ = training(launch)
    os.kill(pid_of(job, "island-1"), signal.SIGTERM)
    assert job.wait_for("left", island="island-1")["reason"] == "drained"
    ended = job.wait_for("exited", island="island-1")
    assert (ended["code"], ended["signal"]) == (0, 0)
    assert job.wait_for("gave_up")["reason"] == "it was drained"
    job.wait_for("round", islands=1)
    job.process.send_signal(signal.SIGINT)
    assert job.end()[0] == 130


def test_what_does_not_leave_in_time_is_killed(
    launch: Launch, script: Any, coordinator: Any
) -> None:
    stubborn = script(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\nwhile True:\n    signal.pause()\n"
    )
    environment = {**os.environ, "ATOLL_LEAVE_S": "1"}
    job = launch("run", "--join", coordinator.address, stubborn, env=environment)
    assert job.process.stdout is not None
    assert any("ready" in line for line in job.process.stdout)
    job.process.send_signal(signal.SIGTERM)
    assert job.wait_for("exited")["signal"] == signal.SIGKILL
    code, _, err = job.end()
    assert code == 143, err


OWN_LOOP = """
import torch, atoll
with atoll.join() as session:
    while True:
        session.all_reduce(torch.ones(10)).result()
"""


def test_a_loop_that_knows_nothing_of_it_ends_in_one_line(
    launch: Launch, script: Any, tmp_path: Path
) -> None:
    path = script(OWN_LOOP)
    job = launch(
        "run", "--standalone", "--islands=3", path, env={**os.environ, "ATOLL_LEAVE_S": "2"}
    )
    address = job.wait_for("listening")["address"]
    for _ in range(3):
        job.wait_for("joined")
    assert atoll("drain", address, "island-1", "--why", "its disk is full").returncode == 0
    ended = job.wait_for("exited", island="island-1")
    assert (ended["code"], ended["signal"]) == (0, 0)
    assert job.wait_for("gave_up", island="island-1")["reason"] == "it was drained"
    gone = json.loads(atoll("status", address, "--json").stdout)["departed"][0]
    assert "its disk is full" in gone["message"]
    job.process.send_signal(signal.SIGINT)
    code, out, _ = job.end()
    assert code == 130
    assert "island-1 | atoll: this island has left the job: its disk is full\n" in out
    assert "Traceback" not in out
    left = [e["message"] for e in job.events if e["kind"] == "left"]
    assert not [message for message in left if "before it was a member" in message]
