"""Real launchers for tests: started as processes, watched through their events, left by none."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Only a test that fails waits for so long; a busy machine may take that long to import torch.
DEADLINE_S = 60.0


def processes_with(variable: str, value: str) -> list[int]:
    """Return the ids of all living processes that have the variable in their environment."""
    wanted = f"{variable}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if wanted in environ.split(b"\0"):
                found.append(int(entry.name))
    return found


def wait_for_death(pid: int) -> None:
    """Wait until a process, anybody's child, has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([handle], [], [], DEADLINE_S)
        assert ready, f"process {pid} still lives"
    finally:
        os.close(handle)


class Launcher:
    """A running `atoll`. Its events come through a named pipe, so that a test can wait for them."""

    def __init__(self, folder: Path, arguments: list[str], **options: Any) -> None:
        self.log_dir = folder / "logs"
        fifo = folder / "events"
        os.mkfifo(fifo)
        self._pipe = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._partial = b""
        self.events: list[dict[str, Any]] = []
        self._unread = 0
        run, *rest = arguments
        command = [sys.executable, "-m", "atoll_launcher", run, "--events", str(fifo)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        self.process = subprocess.Popen(
            [*command, "--log-dir", str(self.log_dir), *rest], text=True, cwd=folder, **options
        )

    def wait_for(self, kind: str, **fields: object) -> dict[str, Any]:
        """Return the next event of a kind that has these fields; earlier ones are passed over."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            while self._unread < len(self.events):
                event = self.events[self._unread]
                self._unread += 1
                if event["kind"] == kind and all(event.get(k) == v for k, v in fields.items()):
                    return event
            self._read(deadline, f"no event {kind} {fields}")

    def _read(self, deadline: float, complaint: str) -> None:
        ready, _, _ = select.select([self._pipe], [], [], max(0, deadline - time.monotonic()))
        data = os.read(self._pipe, 65536) if ready else b""
        if not data:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"{complaint}; events: {self.events}\nout: {out}\nerr: {err}")
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.events += [json.loads(line) for line in lines]

    def end(self) -> tuple[int, str, str]:
        """Wait for the launcher's end; return exit code, stdout and stderr. Nothing may be left."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        while data := os.read(self._pipe, 65536):
            *lines, self._partial = (self._partial + data).split(b"\n")
            self.events += [json.loads(line) for line in lines]
        assert processes_with("ATOLL_LOG_DIR", str(self.log_dir)) == []
        return self.process.returncode, out or "", err or ""

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for pid in processes_with("ATOLL_LOG_DIR", str(self.log_dir)):
            os.kill(pid, signal.SIGKILL)
        os.close(self._pipe)


Launch = Callable[..., Launcher]
