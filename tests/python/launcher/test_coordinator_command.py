"""`atoll coordinator`: a coordinator by itself, and what it is told wrongly."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from atoll_launcher import exit_codes
from atoll_launcher.main import cli, main
from ports import free_port

ATOLL = [sys.executable, "-m", "atoll_launcher.main"]


@pytest.mark.processes
def test_it_runs_shows_its_status_and_ends(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    arguments = ["--listen", address, "--job", "reef", "--store", f"sqlite:{tmp_path}/a.db"]
    with subprocess.Popen([*ATOLL, "coordinator", *arguments], stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert b"job 'reef': listening" in process.stderr.readline()
            # One that does not answer stands before it: the right one is found all the same.
            status = subprocess.run(
                [*ATOLL, "status", f"127.0.0.1:{free_port()},{address}"],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert "job reef" in status.stdout
            assert "no islands yet" in status.stdout
            again = subprocess.run(
                [*ATOLL, "coordinator", *arguments], capture_output=True, text=True, timeout=60
            )
            assert again.returncode == exit_codes.USAGE
            assert "another coordinator has it open" in again.stderr
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--store", "redis://h:1"], "unknown; expected one of memory, sqlite:PATH"),
        (["--min-islands", "0"], "--min-islands 0: must be at least 1"),
        (["--listen", "nowhere"], "listen address 'nowhere': expected HOST:PORT"),
        (["--advertise", "me"], "advertised address 'me': expected HOST:PORT"),
        (
            ["--listen", "0.0.0.0:0", "--insecure", "--store", "etcd://127.0.0.1:1/x"],
            "listens on 0.0.0.0, which is no address to find it at: advertise one",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["coordinator", *arguments]) == exit_codes.USAGE
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("atoll: ")
    assert problem in lines[-1]


def test_nobody_at_any_address_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    addresses = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    assert main(["status", addresses]) == exit_codes.CANNOT_JOIN
    assert f"no coordinator at {addresses}" in capsys.readouterr().err


def test_the_help_names_every_store() -> None:
    shown = CliRunner().invoke(cli, ["coordinator", "--help"]).output
    for word in ("memory", "sqlite:PATH", "etcd://HOST:PORT"):
        assert word in shown
