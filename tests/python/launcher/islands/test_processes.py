"""Real islands under a real launcher: supervision, Ctrl-C, and that nothing is ever left behind."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll_launcher.islands.supervisor import KILL_AFTER_S
from fake_coordinator import FakeCoordinator
from launched import DEADLINE_S, Launch, processes_with, wait_for_death

pytestmark = pytest.mark.processes

Script = Callable[[str], str]

# Ignores the polite request, has a child of its own, and says when it is ready.
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("ready", flush=True)
while True:
    signal.pause()
"""
PATIENT = "import signal\nprint('ready', flush=True)\nsignal.pause()\n"


def read_until(launch_stdout: object, text: str, times: int = 1) -> str:
    """Read a launcher's lines until `text` was in so many of them."""
    seen = ""
    for line in launch_stdout:  # type: ignore[attr-defined]
        seen += line
        times -= text in line
        if times == 0:
            return seen
    raise AssertionError(f"{text!r} never came: {seen}")


def test_islands_get_their_environment_and_arguments(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    path = script(
        "import json, os, sys\n"
        "keep = ('ATOLL_', 'OMP_', 'PYTHONUNB', 'GRPC_ENABLE')\n"
        "env = {k: v for k, v in os.environ.items() if k.startswith(keep)}\n"
        "print(json.dumps([sys.argv, env, os.getsid(0) == os.getpid()]))\n"
    )
    coordinator.status.epoch = 3
    environment = {**os.environ, "ATOLL_MAX_RESTARTS": "1", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    launcher = launch(
        "run", "--join", coordinator.address, "--islands=2", "--threads", "3", path,
        "--islands", "7", "--", "-x",
        env=environment,
    )  # fmt: skip
    code, out, err = launcher.end()
    assert (code, err) == (0, "")
    assert "island-1 | [[" in out
    for number in (1, 2):
        name = f"island-{number}"
        log = (launcher.log_dir / f"{name}.log").read_text().splitlines()
        argv, env, leads_its_session = json.loads(log[-1])
        assert argv == [path, "--islands", "7", "--", "-x"]
        assert leads_its_session
        assert env == {
            "ATOLL_COORDINATOR": coordinator.address,
            "ATOLL_JOB": "lagoon",
            "ATOLL_ISLAND": name,
            "ATOLL_METRICS_PORT": "0",
            "ATOLL_LOG_DIR": str(launcher.log_dir),
            "ATOLL_RESTART": "0",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "3",
        }


def test_an_island_of_one_finds_what_torchrun_would_set(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    path = script(
        "import os\n"
        "names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR')\n"
        "print(*(os.environ[name] for name in names), int(os.environ['MASTER_PORT']) > 0)\n"
    )
    # Of a batch system's, which mean something else.
    environment = {**os.environ, "RANK": "7", "WORLD_SIZE": "64"}
    launcher = launch("run", "--join", coordinator.address, path, env=environment)
    _, out, _ = launcher.end()
    assert "| 0 0 1 1 127.0.0.1 True\n" in out


def test_what_dies_starts_again(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    path = script(
        "import os, signal\n"
        "if os.environ['ATOLL_RESTART'] == '0':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    launcher = launch("run", "--join", coordinator.address, path)
    assert launcher.wait_for("exited")["signal"] == signal.SIGKILL
    again = launcher.wait_for("restarting")
    assert (again["attempt"], again["wait_s"]) == (1, 1.0)
    assert launcher.wait_for("started", attempt=1)["pid"] > 0
    code, out, _ = launcher.end()
    assert code == 0
    assert "exited: SIGKILL" in out
    assert launcher.events[-1]["kind"] == "finished"


def test_a_script_that_cannot_start_is_explained_once(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    path = script("import nonexistent_module\n")
    launcher = launch("run", "--join", coordinator.address, "--islands", "3", path)
    code, out, err = launcher.end()
    assert code == 5
    assert out.count("Traceback (most recent call last)") == 1
    assert "ModuleNotFoundError: No module named 'nonexistent_module'" in out
    assert err.startswith("atoll: all islands failed in the same way while they started")
    assert err.count("\n") == 1
    assert ".log" in err


@pytest.mark.parametrize("text", ["import nonexistent_module\n", "def broken(:\n"])
def test_quiet_still_shows_why_a_script_failed(
    text: str, launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    path = script("print('hello', flush=True)\n" + text)
    launcher = launch("run", "--join", coordinator.address, "--quiet", "--islands=2", path)
    code, out, err = launcher.end()
    assert code == 5
    assert "hello" not in out
    assert out.count(f"| {text.strip()}\n") + out.count(f"|     {text.strip()}\n") == 1
    assert "Error: " in out
    assert err.count("\n") == 1


def test_a_failing_script_is_given_up_and_makes_exit_code_5(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    path = script("import os, sys\nsys.exit(7 if os.environ['ATOLL_ISLAND'].endswith('0') else 0)")
    launcher = launch("run", "--join", coordinator.address, "--max-restarts=0", "--islands=2", path)
    code, _, err = launcher.end()
    assert code == 5
    assert "failed; 1 of 2 islands finished" in err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 129)]
)
def test_stop_signals_end_everything(
    number: signal.Signals,
    code: int,
    launch: Launch,
    coordinator: FakeCoordinator,
    script: Script,
) -> None:
    launcher = launch("run", "--join", coordinator.address, "--islands=2", script(PATIENT))
    read_until(launcher.process.stdout, "ready", times=2)
    launcher.process.send_signal(number)
    assert launcher.end()[0] == code
    ended = [e["signal"] for e in launcher.events if e["kind"] == "exited"]
    assert ended == [signal.SIGTERM] * 2, "islands that obey need not be killed"


def test_an_island_that_does_not_obey_is_killed_with_its_children(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    launcher = launch("run", "--join", coordinator.address, "--islands=2", script(STUBBORN))
    read_until(launcher.process.stdout, "ready", times=2)
    # Each has a child, whose environment cannot be read in the moment of its exec.
    deadline = time.monotonic() + 10
    while len(processes_with("ATOLL_LOG_DIR", str(launcher.log_dir))) < 4:
        assert time.monotonic() < deadline, "an island's child never appeared"
    launcher.process.send_signal(signal.SIGINT)
    asked = launcher.wait_for("note")["time"]
    killed = launcher.wait_for("exited", signal=signal.SIGKILL)["time"]
    assert killed - asked > 0.9 * KILL_AFTER_S, "they were to have two seconds"
    assert launcher.end()[0] == 130


def test_the_second_ctrl_c_kills_at_once(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    launcher = launch("run", "--join", coordinator.address, script(STUBBORN))
    read_until(launcher.process.stdout, "ready")
    launcher.process.send_signal(signal.SIGINT)
    asked = launcher.wait_for("note")["time"]
    launcher.process.send_signal(signal.SIGINT)
    assert launcher.wait_for("exited", signal=signal.SIGKILL)["time"] - asked < KILL_AFTER_S
    assert launcher.end()[0] == 130


def test_no_island_survives_a_killed_launcher(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    launcher = launch("run", "--join", coordinator.address, "--islands=2", script(PATIENT))
    read_until(launcher.process.stdout, "ready", times=2)
    pids = processes_with("ATOLL_LOG_DIR", str(launcher.log_dir))
    assert len(pids) == 2
    launcher.process.kill()
    for pid in pids:
        wait_for_death(pid)


def test_ctrl_c_on_a_terminal_gives_the_terminal_back(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    terminal, launchers_end = pty.openpty()
    before = termios.tcgetattr(terminal)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    launcher = launch(
        "run", "--join", coordinator.address, script(PATIENT),
        stdin=launchers_end, stdout=launchers_end, stderr=subprocess.STDOUT, env=environment,
        preexec_fn=lambda: os.login_tty(launchers_end),
    )  # fmt: skip
    os.close(launchers_end)
    drawn = b""

    def read(until: bytes) -> None:
        nonlocal drawn
        while until not in drawn:
            ready, _, _ = select.select([terminal], [], [], DEADLINE_S)
            assert ready, drawn
            drawn += os.read(terminal, 65536)

    read(b"ready")
    assert b"tokens/s" in drawn, "no live view"
    os.write(terminal, b"\x03")
    launcher.wait_for("finished")
    read(b"\x1b[?25h")
    assert launcher.end()[0] == 130
    assert drawn.rindex(b"\x1b[?25h") > drawn.rindex(b"\x1b[?25l"), "the cursor is hidden"
    assert termios.tcgetattr(terminal) == before
    os.close(terminal)


def test_a_pipe_that_nobody_reads_holds_up_nothing(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    path = script("for number in range(100_000):\n    print('line', number)\n")
    launcher = launch("run", "--join", coordinator.address, path)
    launcher.wait_for("exited", code=0)
    launcher.wait_for("finished", code=0)
    assert launcher.process.wait(DEADLINE_S) == 0
    log = next(launcher.log_dir.iterdir()).read_text()
    assert log.endswith("line 99999\n")


def test_a_reader_that_goes_away_ends_nothing(
    launch: Launch, coordinator: FakeCoordinator, script: Script
) -> None:
    launcher = launch("run", "--join", coordinator.address, script("print('x\\n' * 100_000)"))
    assert launcher.process.stdout is not None
    launcher.process.stdout.close()
    launcher.wait_for("finished", code=0)
    assert launcher.process.wait(DEADLINE_S) == 0


def test_logs_of_later_starts_are_appended(
    launch: Launch, coordinator: FakeCoordinator, script: Script, tmp_path: Path
) -> None:
    path = script(
        "import os, signal\n"
        "print('start', os.environ['ATOLL_RESTART'], flush=True)\n"
        "if os.environ['ATOLL_RESTART'] == '0':\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    launcher = launch("run", "--join", coordinator.address, path)
    assert launcher.end()[0] == 0
    (log,) = launcher.log_dir.iterdir()
    lines = [line for line in log.read_text().splitlines() if not line.startswith("===")]
    assert lines == ["start 0", "start 1"]
