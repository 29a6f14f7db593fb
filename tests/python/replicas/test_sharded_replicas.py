"""FSDP inside, fault tolerance outside: two replicas of two processes, beside one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Coordinator
from sharded_replica import AFTER, STEPS, batch_of, inner_of, model

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("sharded_replica.py")
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def reference() -> dict[str, torch.Tensor]:
    trained = model()
    inner = inner_of(trained)
    for step in range(STEPS):
        inner.zero_grad()
        trained(torch.cat([batch_of(step, 0), batch_of(step, 1)])).square().mean().backward()
        inner.step()
    return {name: parameter.detach() for name, parameter in trained.named_parameters()}


@pytest.mark.parametrize("device", DEVICES)
def test_each_shard_exchanges_with_its_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("WORKER_DEVICE", device)
    options = ["--islands", "2", "--nproc-per-node", "2", "--min-islands", "2", "--threads", "1"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "atoll_launcher.main", "run", "--standalone", "--plain"),
            *(*options, "--log-dir", str(tmp_path / "logs"), str(SCRIPT), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    logs = "".join(path.read_text()[-3000:] for path in (tmp_path / "logs").glob("island-*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    first, second = (torch.load(tmp_path / f"island-{number}.pt") for number in range(2))
    for name, value in reference().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)


DIES_AT = 4
PATIENCE_S = 60.0


def start(folder: Path, port: int, island: str, die_at: int) -> list[subprocess.Popen[bytes]]:
    """Both shards of a replica."""
    found = []
    for rank in ("0", "1"):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "ATOLL_COORDINATOR": f"127.0.0.1:{port}",
            "ATOLL_JOB": "reef",
            "ATOLL_ISLAND": island,
            **{"ATOLL_SHARD": rank, "ATOLL_SHARDS": "2", "RANK": rank, "WORLD_SIZE": "2"},
        }
        with (folder / f"{island}.{rank}.log").open("wb") as log:
            command = [sys.executable, str(SCRIPT), str(folder), str(die_at)]
            found.append(subprocess.Popen(command, stderr=log, env=environment))
    return found


def steps(folder: Path, island: str) -> list[dict[str, Any]]:
    """As both shards say."""
    first, second = ((folder / f"{island}.{rank}").read_text().splitlines() for rank in "01")
    assert first == second
    return [json.loads(line) for line in first]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("device", DEVICES)
def test_after_a_replica_is_lost_another_one_heals_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("WORKER_DEVICE", device)
    with Coordinator(min_islands=3) as coordinator:
        running = {
            name: start(tmp_path, coordinator.port, name, DIES_AT if name == "c" else -1)
            for name in "abc"
        }
        try:
            assert [process.wait(PATIENCE_S) for process in running["c"]] == [-9, -9]
            running["d"] = start(tmp_path, coordinator.port, "d", -1)
            for name in "abd":
                for rank, process in enumerate(running[name]):
                    log = tmp_path / f"{name}.{rank}.log"
                    assert process.wait(PATIENCE_S) == 0, log.read_text()
        finally:
            for process in [each for both in running.values() for each in both]:
                process.kill()
                process.wait()
    a, b, c, d = (steps(tmp_path, name) for name in "abcd")
    assert a == b
    by_step = {line["step"]: line["held"] for line in a}
    assert sorted(by_step) == list(range(1, a[-1]["step"] + 1))
    assert [line["step"] for line in c] == list(range(1, DIES_AT + 1))
    assert len(d) == AFTER
    assert all(by_step[line["step"]] == line["held"] for line in c + d)
    assert [line["slots"] for line in a][-AFTER:] == [3] * AFTER
