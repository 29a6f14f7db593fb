"""What people build on torch.distributed, over real processes; and a rank that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.processes, pytest.mark.slow]

WORKER = Path(__file__).with_name("torch_worker.py")
SCENARIOS = [
    "ddp",
    "fsdp",
    "device_mesh",
    "dtensor",
    "checkpoint",
    "functional",
    "groups",
    "objects",
    "many_at_once",
]
SIZE = 3
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def start(folder: Path, device: str, *scenarios: str) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, WORKER, str(folder / "store"), str(rank), str(SIZE), *scenarios],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "WORKER_DEVICE": device},
        )
        for rank in range(SIZE)
    ]


@pytest.fixture(scope="module", params=DEVICES)
def said(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """By rank, the error of each scenario that it got to."""
    ranks = start(tmp_path_factory.mktemp("torch"), request.param, *SCENARIOS)
    results = []
    for rank in ranks:
        out, err = rank.communicate(timeout=100)
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        errors = {line["name"]: line["error"] for line in lines}
        results.append({name: errors.get(name, f"not reached\n{err}") for name in SCENARIOS})
    return results


@pytest.mark.parametrize("name", SCENARIOS)
def test_works_with(said: list[dict[str, Any]], name: str) -> None:
    for rank, errors in enumerate(said):
        assert errors[name] is None, f"rank {rank}: {errors[name]}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("sent", "says"), [(signal.SIGKILL, "process has died"), (signal.SIGSTOP, "heard")]
)
def test_a_rank_that_dies_or_stops_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals,
    says: str,
    device: str,
) -> None:
    monkeypatch.setenv("ATOLL_SILENCE_S", "1.5")
    ranks = start(tmp_path, device, "killed")
    try:
        for rank in ranks:
            assert rank.stdout is not None
            assert json.loads(rank.stdout.readline()) == {"name": "began"}
        ranks[1].send_signal(sent)
        sent_s = time.monotonic()
        for rank in (ranks[0], ranks[2]):
            assert rank.stdout is not None
            ended = json.loads(rank.stdout.readline())
            assert "GroupBroken: Connection closed by peer rank 1 (127.0.0.1:" in ended["error"]
            # A process with an accelerator has closed its files long before it is dead.
            known = (says, "closed the connection") if device == "cuda" else (says,)
            assert any(reason in ended["error"] for reason in known)
        # Far below an op's deadline; not a measurement.
        assert time.monotonic() - sent_s < 20
        assert [rank.wait(30) for rank in (ranks[0], ranks[2])] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
