"""Real jobs of an example: a launcher, its coordinator and islands, whose deaths are events."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PATIENCE_S = 120.0


def needs(*libraries: str) -> list[pytest.MarkDecorator]:
    """The marks of a module whose tests run with these libraries, under `make test-trainers`."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    asked = "TRAINER_TESTS" in os.environ
    if missing:
        why = f"{', '.join(missing)} is not installed; make test-trainers installs it"
    else:
        why = "tests of trainers run with: make test-trainers"
    return [
        pytest.mark.skipif(bool(missing) or not asked, reason=why),
        pytest.mark.processes,
        pytest.mark.training,
        pytest.mark.timeout(2 * PATIENCE_S),
    ]


def load(script: Path) -> Any:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Job:
    """Two islands of a script. `folder` gets logs and events."""

    def __init__(
        self, folder: Path, script: Path, *arguments: str, options: str = "", **settings: str
    ) -> None:
        """options: of `atoll run`; settings: ATOLL_* in the environment."""
        self.folder = folder
        command = [
            *(sys.executable, "-m", "atoll_launcher.main", "run", "--standalone", "--plain"),
            *("--islands", "2", "--threads", "1", *options.split()),
            *("--log-dir", str(folder), "--events", str(folder / "events.jsonl")),
            *(str(script), *arguments),
        ]
        env = {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
        with (folder / "launcher.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=env | settings
            )

    def events(self, kind: str) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def until(self, what: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            found = what()
            if found:
                return found
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)
        raise AssertionError(f"nothing of the kind in {PATIENCE_S} s\n{self.log()}")

    def until_round(self, number: int) -> None:
        self.until(lambda: max((e["round"] for e in self.events("round")), default=0) >= number)

    def kill(self, island: str) -> None:
        pids = {event["island"]: event["pid"] for event in self.events("started")}
        os.kill(pids[island], signal.SIGKILL)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def log(self) -> str:
        return (self.folder / "launcher.log").read_text()[-4000:]

    def ends(self, island: str) -> list[tuple[int, str]]:
        """(round, digest of the parameters) that an island said at its end."""
        text = (self.folder / f"{island}.log").read_text()
        found = re.findall(r"after round (\d+) the parameters are ([0-9a-f]+)", text)
        return [(int(round_), digest) for round_, digest in found]
