"""A training script for an island of several processes, which FSDP2 or DDP makes one.

    sharded_island.py fsdp|ddp FOLDER           WORKER_DEVICE: cpu, or cuda, which all share

Every island trains on numbers of its own; rank 0 writes the whole model after the last round.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

import atoll
import atoll.distributed

DEVICE = os.environ.get("WORKER_DEVICE", "cpu")
ROUNDS = 4
STEPS = 3
OUTER: dict[str, float] = {"outer_lr": 0.7, "outer_momentum": 0.9}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def batches(island: str) -> list[Tensor]:
    """The island's batch of every step, [8, 6]."""
    generator = torch.Generator().manual_seed(int(island.rpartition("-")[2]))
    return [torch.randn(8, 6, generator=generator) for _ in range(ROUNDS * STEPS)]


def inner_of(trained: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)


def train(trained: nn.Module, inner: torch.optim.Optimizer, batch: Tensor) -> None:
    trained(batch).square().mean().backward()
    inner.step()
    inner.zero_grad()


def main() -> None:
    how, folder = sys.argv[1], Path(sys.argv[2])
    island = os.environ["ATOLL_ISLAND"]
    dist.init_process_group("gloo" if DEVICE == "cpu" else "atoll")
    rank, size = dist.get_rank(), dist.get_world_size()
    plain = model().to(DEVICE)
    trained: nn.Module = plain
    if how == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        fully_shard(plain, mesh=init_device_mesh(DEVICE, (size,)))
    else:
        trained = nn.parallel.DistributedDataParallel(plain)
    inner = inner_of(trained)
    with atoll.join({"metrics_port": -1}) as session:
        outer = atoll.DiLoCo(session, plain, inner, sync_every=STEPS, **OUTER)
        for batch in batches(island):
            train(trained, inner, batch.chunk(size)[rank].to(DEVICE))
            outer.step()
        assert outer.round == ROUNDS
        whole = {
            name: (parameter.full_tensor() if how == "fsdp" else parameter).detach().cpu()
            for name, parameter in plain.named_parameters()
        }
        if rank == 0:
            torch.save(whole, folder / f"{island}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
