"""Three real replicas; one is killed in the middle of a step, a new one takes its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import replica_worker
import torch
from harness import Coordinator

WORKER = Path(replica_worker.__file__)
PATIENCE_S = 60.0
DIES_AT = 6
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""How a matrix product is split between threads shows in its bits."""

pytestmark = [pytest.mark.processes, pytest.mark.timeout(150)]


def start(
    folder: Path, port: int, name: str, batch: str, die_at: int, *, waits: bool = False
) -> subprocess.Popen[bytes]:
    """waits: it joins when its standard input is closed."""
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(WORKER), batch, str(die_at), str(folder / f"{name}.steps")],
            stdin=subprocess.PIPE if waits else subprocess.DEVNULL,
            stderr=log,
            env={
                **os.environ,
                **ONE_THREAD,
                "ATOLL_COORDINATOR": f"127.0.0.1:{port}",
                "ATOLL_JOB": "reef",
                "ATOLL_ISLAND": name,
                "WORKER_WAITS": "1" if waits else "",
            },
        )


def steps(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.steps").read_text().splitlines()]


def slots(path: Path) -> list[int]:
    """Of a replica that still writes: its last line may be cut off."""
    lines = path.read_text().splitlines()[:-1] if path.exists() else []
    return [json.loads(line)["slots"] for line in lines]


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, f"it did not come true within {PATIENCE_S} s"
        time.sleep(0.02)


def undisturbed(folder: Path, count: int) -> dict[int, str]:
    """By step, what one replica alone holds: all micro-batches are its own."""
    command = [sys.executable, str(WORKER), "fixed", "-1", str(folder / "alone.steps"), str(count)]
    subprocess.run(command, check=True, timeout=PATIENCE_S, env={**os.environ, **ONE_THREAD})
    return {line["step"]: line["held"] for line in steps(folder, "alone")}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", ["constant", "scaled", "fixed"])
def test_one_is_killed_in_a_step_and_a_new_one_heals_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: str, device: str
) -> None:
    monkeypatch.setenv("WORKER_DEVICE", device)
    with Coordinator(min_islands=3) as coordinator:
        names = ["a", "b", "c"]
        running = {
            name: start(tmp_path, coordinator.port, name, batch, DIES_AT if name == "c" else -1)
            for name in names
        }
        running["d"] = spare = start(tmp_path, coordinator.port, "d", batch, -1, waits=True)
        try:
            assert running["c"].wait(PATIENCE_S) == -9
            wait_for(lambda: 2 in slots(tmp_path / "a.steps"))
            assert spare.stdin is not None
            spare.stdin.close()
            for name in ("a", "b", "d"):
                assert running[name].wait(PATIENCE_S) == 0, (tmp_path / f"{name}.log").read_text()
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    a, b, c, d = (steps(tmp_path, name) for name in "abcd")
    # Also which steps were done again, and among how many.
    other = [pair for pair in zip(a, b, strict=True) if pair[0] != pair[1]]
    assert not other, f"{len(other)} lines, from {other[0]}"
    by_step = {line["step"]: line["held"] for line in a}
    assert [line["step"] for line in c] == list(range(1, DIES_AT + 1))
    assert all(by_step[line["step"]] == line["held"] for line in c + d)
    # Nobody's step but the one in which it died: once again with fixed, otherwise not even that.
    again = [line for line in a if not line["done"]]
    assert all(line["slots"] == 2 for line in again[:1])
    assert len(again) <= (2 if batch == "fixed" else 0)
    assert [line["slots"] for line in a if line["done"]][:DIES_AT] == [3] * DIES_AT
    assert a[-1]["slots"] == 3
    assert len(d) >= replica_worker.AFTER
    assert sorted(by_step) == list(range(1, a[-1]["step"] + 1))
    if batch == "fixed":
        alone = undisturbed(tmp_path, a[-1]["step"])
        other = [line for line in a if line["held"] != alone.get(line["step"])]
        assert not other, f"{len(other)} lines, from {other[0]}; after {again}"
