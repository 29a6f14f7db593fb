"""A whole job on this machine: embedded coordinator, islands, other launchers, operators."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from launched import Launch
from ports import free_port

pytestmark = pytest.mark.processes

Script = Callable[[str], str]
PATIENT = "import signal\nprint('ready', flush=True)\nsignal.pause()\n"


def atoll(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "atoll_launcher", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_job_from_start_to_end(launch: Launch, script: Script) -> None:
    path = script("import os\nprint(os.environ['ATOLL_COORDINATOR'], os.environ['ATOLL_JOB'])\n")
    launcher = launch("run", "--standalone", "--islands", "3", path)
    address = launcher.wait_for("listening")["address"]
    code, out, err = launcher.end()
    assert (code, err) == (0, "")
    started = [e["island"] for e in launcher.events if e["kind"] == "started"]
    assert started == ["island-0", "island-1", "island-2"]
    assert f"island-0 | {address} script\n" in out
    assert "finished: 3 of 3 islands finished" in out


def test_another_shell_sees_and_joins_the_job(
    launch: Launch, script: Script, tmp_path: Path
) -> None:
    path = script(PATIENT)
    host = launch("run", "--standalone", "--job", "lagoon", path)
    address = host.wait_for("listening")["address"]
    status = json.loads(atoll("status", address, "--json").stdout)
    assert (status["job"], status["epoch"], status["min_islands"]) == ("lagoon", 0, 1)
    assert "no islands yet" in atoll("status", address).stdout

    wrong = atoll("run", "--join", address, "--job", "reef", path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (3, 1)
    assert "runs job 'lagoon', not 'reef'" in wrong.stderr

    (tmp_path / "second").mkdir()
    guest = launch("run", "--join", address, path, folder=tmp_path / "second")
    assert guest.wait_for("listening")["job"] == "lagoon"
    assert guest.wait_for("started")["island"] != "island-0"
    guest.process.send_signal(signal.SIGINT)
    assert guest.end()[0] == 130
    assert host.process.poll() is None, "a guest that stops must not stop the job"
    host.process.send_signal(signal.SIGTERM)
    assert host.end()[0] == 0


def test_a_chosen_port_and_store(launch: Launch, script: Script, tmp_path: Path) -> None:
    port = free_port()
    store = tmp_path / "job.sqlite"
    launcher = launch(
        "run", "--standalone", "--listen", f"127.0.0.1:{port}", "--store", str(store), script("")
    )
    assert launcher.wait_for("listening")["address"] == f"127.0.0.1:{port}"
    assert launcher.end()[0] == 0
    with sqlite3.connect(store) as connection:
        assert connection.execute("select count(*) from sqlite_master").fetchone()[0] > 0


def test_the_coordinator_serves_metrics(launch: Launch, script: Script) -> None:
    launcher = launch("run", "--standalone", script(PATIENT))
    port = launcher.wait_for("listening")["metrics_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        assert b"atoll_" in page.read()
    launcher.process.send_signal(signal.SIGINT)
    assert launcher.end()[0] == 130


def test_below_the_minimum_the_rest_is_stopped(launch: Launch, script: Script) -> None:
    path = script(
        "import os, signal\n"
        "if os.environ['ATOLL_ISLAND'] == 'island-1':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "signal.pause()\n"
    )
    launcher = launch(
        "run", "--standalone", "--islands=3", "--min-islands=3", "--max-restarts=0", path
    )
    code, _, err = launcher.end()
    assert code == 4
    assert err.startswith("atoll: 2 islands are left, and the job needs 3")


def test_a_proxy_of_the_environment_is_not_asked(launch: Launch, script: Script) -> None:
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    launcher = launch("run", "--standalone", script(PATIENT), env=environment)
    launcher.wait_for("started")
    launcher.process.send_signal(signal.SIGTERM)
    code, out, _ = launcher.end()
    assert code == 0
    assert "does not answer" not in out


# Ends when an island that was started again has taken part: the sum is then at least one. It
# joins when somebody opens the pipe.
TRAINS = """
import os, threading
import torch, atoll

again = float(os.environ["ATOLL_RESTART"] != "0")
if again:
    open("again").close()
pace = threading.Event()
with atoll.join() as session:
    round_, total = 0, torch.zeros(1)
    while float(total) == 0:
        handle = session.all_reduce(torch.full((4,), again))
        handle.wait()
        total = handle.target[0]
        round_ += 1
        session.report(round=round_, loss=1 / round_, phase="training", contributed=True)
        pace.wait(0.05)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_island_is_killed_and_comes_back(launch: Launch, script: Script, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "again")
    launcher = launch("run", "--standalone", "--islands=2", script(TRAINS))
    victim = launcher.wait_for("started", island="island-1")["pid"]
    launcher.wait_for("joined", island="island-1")
    launcher.wait_for("round", islands=2)
    os.kill(victim, signal.SIGKILL)
    launcher.wait_for("exited", island="island-1", signal=signal.SIGKILL)
    left = launcher.wait_for("left", island="island-1")
    assert (left["reason"], left.get("signal")) == ("crashed", signal.SIGKILL), left
    # Not of a certain number: there was a view with what was measured of the links, or not yet.
    launcher.wait_for("view", members=["island-0"])
    launcher.wait_for("round", islands=1)
    (tmp_path / "again").open("w").close()
    launcher.wait_for("joined", island="island-1")
    code, _, err = launcher.end()
    assert (code, err) == (0, "")
