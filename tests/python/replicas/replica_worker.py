"""One replica that trains a small model, and says what it holds after every step.

    replica_worker.py BATCH DIE_AT OUT [STEPS]     ATOLL_* set, or alone; WORKER_DEVICE: cpu, cuda

DIE_AT: the step in whose backward it kills itself, when its first bucket has been sent off and its
last one has not; -1: never. It ends after STEPS, or ten steps after the job has three replicas once
more, others than the first three. OUT gets a line of JSON for each step. With WORKER_WAITS=1 it
joins when its standard input is at its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

import torch

import atoll
from atoll.state.manifest import bytes_of, digest

DEVICE = os.environ.get("WORKER_DEVICE", "cpu")
MICRO_BATCHES = 8
AFTER = 10


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(24, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 1),
        )
        generator = torch.Generator().manual_seed(5)  # of its own: replicas may be threads
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def loss_of(ddp: Any, step: int, index: int) -> torch.Tensor:
    """Of micro-batch `index` of a step: the same numbers on every replica."""
    generator = torch.Generator().manual_seed(step * 1000 + index)
    x = torch.randn(6, 24, generator=generator).to(DEVICE)
    return (ddp(x) - x.sum(1, keepdim=True).sin()).square().mean()


def held(model: torch.nn.Module, inner: torch.optim.Optimizer) -> str:
    parts = [parameter.detach().reshape(-1) for parameter in model.parameters()]
    for entries in inner.state_dict()["state"].values():
        parts += [value.reshape(-1) for value in entries.values()]
    return digest(bytes_of(torch.cat([part.cpu() for part in parts])))


def replica(session: Any, batch: str, *, bucket_mib: float = 0.01) -> tuple[Any, Any, Any]:
    model = Model().to(DEVICE)
    inner = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options: dict[str, dict[str, Any]] = {
        "constant": {},
        "scaled": {"replicas": 3},
        "fixed": {"micro_batches": MICRO_BATCHES},
    }
    ddp = atoll.FaultTolerantDDP(
        session, model, batch=batch, bucket_mib=bucket_mib, **options[batch]
    )
    return model, ddp, atoll.FaultTolerantOptimizer(ddp, inner)


def compute(ddp: Any, batch: str) -> None:
    if batch == "fixed":
        for index in ddp.micro_batches():
            loss_of(ddp, ddp.step, index).backward()
    else:
        loss_of(ddp, ddp.step, ddp.slot).backward()


def train(session: Any, batch: str, die_at: int, out: TextIO, end: int | None) -> None:
    model, ddp, optimizer = replica(session, batch)
    if ddp.step > 0:
        end = ddp.step + AFTER
    first: tuple[bytes, ...] = ()

    def dies(gradient: torch.Tensor) -> None:
        if ddp.step == die_at and len(ddp.exchange._flights) > 0:
            assert len(ddp.exchange._flights) < ddp.exchange.position.buckets
            os.kill(os.getpid(), signal.SIGKILL)

    if die_at >= 0:  # of the layer in the middle
        model.layers[2].bias.register_post_accumulate_grad_hook(dies)
    while end is None or ddp.step < end:
        optimizer.zero_grad()
        compute(ddp, batch)
        done = optimizer.step()
        line = {"step": ddp.step, "done": done, "slots": ddp.slots}
        out.write(json.dumps({**line, "held": held(model, optimizer.inner)}) + "\n")
        out.flush()
        if end is None and ddp.slots == 3:
            first = first or ddp.exchange.position.assigned
            if ddp.exchange.position.assigned != first:
                end = ddp.step + AFTER


def main() -> None:
    batch, die_at, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    end = int(sys.argv[4]) if len(sys.argv) > 4 else None
    torch.set_num_threads(1)
    if os.environ.get("WORKER_WAITS"):
        sys.stdin.read()
    with atoll.join({"metrics_port": -1}) as session, out.open("w") as lines:
        train(session, batch, die_at, lines, end)


if __name__ == "__main__":
    main()
