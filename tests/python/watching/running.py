"""A real job to look at: a coordinator and islands in processes of their own, on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ports import free_port

PATIENCE_S = 100.0
NONE: Mapping[str, str] = {}
WORKER = Path(__file__).parents[1] / "processes" / "worker.py"
LIGHT = Path(__file__).parent / "light_island.py"


def until(happened: Callable[[], object], what: str) -> None:
    """Raises TimeoutError when it does not happen in a while."""
    end = time.monotonic() + PATIENCE_S
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(0.05)


class RunningJob:
    """The job `reef`. Islands train with int8 and write checkpoints."""

    def __init__(self, folder: Path, *, min_islands: int = 2, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port, self.http = free_port(), free_port()
        self.islands: dict[str, subprocess.Popen[bytes]] = {}
        self.coordinator = self._start(
            "coordinator",
            [
                *("-m", "atoll.coordinator", "--job", "reef", *options),
                *("--listen", self.address, "--metrics-port", str(self.http)),
                *("--min-islands", str(min_islands)),
            ],
            {},
        )
        until(lambda: "listening" in self.log("coordinator"), "the coordinator to listen")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def join(self, name: str, *, light: bool = False, more: Mapping[str, str] = NONE) -> None:
        """light: an island that trains nothing. more: variables, without ATOLL_."""
        chosen = {
            "COORDINATOR": self.address,
            "JOB": "reef",
            "ISLAND": name,
            "SHARED_MEMORY": "0",
            "CHECKPOINT_URL": str(self.folder / "checkpoints"),
            "CHECKPOINT_EVERY": "5",
            **more,
        }
        command = [
            *(str(WORKER), "--method", "delayed", "--elements", "200000", "--step-s", "0.05"),
            *("--samples", "1000000"),
        ]
        env = {f"ATOLL_{key}": value for key, value in chosen.items()}
        self.islands[name] = self._start(name, [str(LIGHT)] if light else command, env)

    def kill(self, name: str) -> None:
        process = self.islands.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def views(self) -> list[str]:
        """What the coordinator has said of views."""
        return re.findall(r"view \d+ \(.*", self.log("coordinator"))

    def close(self) -> None:
        for process in (*self.islands.values(), self.coordinator):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def _start(self, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, "OMP_NUM_THREADS": "1", **env},
                stdout=log,
                stderr=log,
            )
