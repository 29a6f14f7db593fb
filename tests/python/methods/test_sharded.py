"""Islands of two processes each: a model that FSDP2 shards, or DDP replicates, inside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sharded_island import OUTER, ROUNDS, STEPS, batches, inner_of, model, train

from atoll.methods.outer import nesterov_step

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("sharded_island.py")
ISLANDS = ("island-0", "island-1")
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def reference() -> dict[str, torch.Tensor]:
    """DiLoCo of both islands in one process, the model in one piece."""
    theta = {name: p.detach().clone() for name, p in model().named_parameters()}
    momentum = {name: torch.zeros_like(value) for name, value in theta.items()}
    workers = [(model(), batches(island)) for island in ISLANDS]
    inners = [inner_of(worker) for worker, _ in workers]
    for round_ in range(ROUNDS):
        deltas = []
        for (worker, data), inner in zip(workers, inners, strict=True):
            for batch in data[round_ * STEPS : (round_ + 1) * STEPS]:
                train(worker, inner, batch)
            deltas.append({n: theta[n] - p.detach() for n, p in worker.named_parameters()})
        for name in theta:
            mean = (deltas[0][name] + deltas[1][name]) / 2
            theta[name], momentum[name] = nesterov_step(
                theta[name], momentum[name], mean, lr=OUTER["outer_lr"], mu=OUTER["outer_momentum"]
            )
        for worker, _ in workers:
            with torch.no_grad():
                for name, parameter in worker.named_parameters():
                    parameter.copy_(theta[name])
    return theta


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("how", ["fsdp", "ddp"])
def test_each_shard_exchanges_with_its_twins(
    how: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_DEVICE", device)
    options = ["--islands", "2", "--nproc-per-node", "2", "--min-islands", "2", "--threads", "1"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "atoll_launcher.main", "run", "--standalone", "--plain"),
            *(*options, "--log-dir", str(tmp_path / "logs"), str(SCRIPT), how, str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    logs = "".join(path.read_text()[-3000:] for path in (tmp_path / "logs").glob("island-*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    first, second = (torch.load(tmp_path / f"{island}.pt") for island in ISLANDS)
    wanted = reference()
    for name, value in wanted.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
    assert not torch.equal(wanted["0.weight"], model()[0].weight)


def test_shards_leave_after_the_same_round(tmp_path: Path) -> None:
    options = ["--islands", "2", "--nproc-per-node", "2", "--min-islands", "1", "--threads", "1"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "atoll_launcher.main", "run", "--standalone", "--plain"),
            *(*options, "--log-dir", str(tmp_path / "logs")),
            *(str(SCRIPT.with_name("sharded_leaver.py")), str(tmp_path), "island-1"),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    logs = "".join(path.read_text()[-3000:] for path in (tmp_path / "logs").glob("island-*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    rounds = {path.name: int(path.read_text()) for path in tmp_path.glob("island-*.?")}
    assert rounds["island-1.0"] == rounds["island-1.1"] == 3, done.stdout
    assert "island-1 is not started again: it was drained" in done.stdout
    assert rounds["island-0.0"] == rounds["island-0.1"] == 6
