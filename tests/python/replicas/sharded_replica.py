"""A replica of two processes, which FSDP2 shards inside: each shard exchanges with its twin.

    sharded_replica.py FOLDER            a launcher's island: STEPS steps; rank 0 writes the model
    sharded_replica.py FOLDER DIE_AT     ATOLL_*, RANK, WORLD_SIZE set: rank 0 writes a line of JSON
                                         for each step

WORKER_DEVICE: cpu, or cuda, which all processes share. DIE_AT: the step in which both processes
kill themselves; -1: never. They end AFTER steps after the job has three replicas once more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import atoll
import atoll.distributed
from atoll.state.manifest import bytes_of, digest

DEVICE = os.environ.get("WORKER_DEVICE", "cpu")
BACKEND = "gloo" if DEVICE == "cpu" else "atoll"
STEPS = 8
AFTER = 5


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def batch_of(step: int, replica: int) -> Tensor:
    """[8, 6]."""
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(step * 10 + replica))


def inner_of(trained: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trained.parameters(), lr=0.01)


def whole_of(trained: nn.Module) -> dict[str, Tensor]:
    """By all ranks at once."""
    parameters: Any = trained.named_parameters()
    return {name: parameter.full_tensor().detach().cpu() for name, parameter in parameters}


def come_and_go(folder: Path, island: str, die_at: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = f"file://{folder / island}.store"
    dist.init_process_group(BACKEND, init_method=store, rank=rank, world_size=size)
    trained = model().to(DEVICE)
    fully_shard(trained, mesh=init_device_mesh(DEVICE, (size,)))
    with (
        atoll.join({"metrics_port": -1}) as session,
        (folder / f"{island}.{rank}").open("w") as out,
    ):
        ddp = atoll.FaultTolerantDDP(session, trained, bucket_mib=1e-4)
        optimizer = atoll.FaultTolerantOptimizer(ddp, inner_of(trained))
        end = ddp.step + AFTER if ddp.step > 0 else None
        fewer = False
        while end is None or ddp.step < end:
            if ddp.step == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            optimizer.zero_grad()
            batch = batch_of(ddp.step, ddp.slot).chunk(size)[rank]
            ddp(batch.to(DEVICE)).square().mean().backward()
            assert optimizer.step()
            held = digest(bytes_of(torch.cat([p.reshape(-1) for p in whole_of(trained).values()])))
            out.write(json.dumps({"step": ddp.step, "slots": ddp.slots, "held": held}) + "\n")
            out.flush()
            fewer = fewer or ddp.slots == 2
            if fewer and end is None and ddp.slots == 3:
                end = ddp.step + AFTER
    dist.destroy_process_group()


def main() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    folder, island = Path(sys.argv[1]), os.environ["ATOLL_ISLAND"]
    dist.init_process_group(BACKEND)
    rank, size = dist.get_rank(), dist.get_world_size()
    trained = model().to(DEVICE)
    fully_shard(trained, mesh=init_device_mesh(DEVICE, (size,)))
    with atoll.join({"metrics_port": -1}) as session:
        ddp = atoll.FaultTolerantDDP(session, trained)
        optimizer = atoll.FaultTolerantOptimizer(ddp, inner_of(trained))
        while ddp.step < STEPS:
            optimizer.zero_grad()
            batch = batch_of(ddp.step, int(island.rpartition("-")[2]))
            ddp(batch.chunk(size)[rank].to(DEVICE)).square().mean().backward()
            optimizer.step()
        whole = whole_of(trained)
        if rank == 0:
            torch.save(whole, folder / f"{island}.pt")
        with pytest.raises(atoll.errors.MisuseError, match="islands of one process"):
            atoll.FaultTolerantDDP(session, trained, batch="fixed", micro_batches=4)
    dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        come_and_go(Path(sys.argv[1]), os.environ["ATOLL_ISLAND"], int(sys.argv[2]))
    else:
        main()
