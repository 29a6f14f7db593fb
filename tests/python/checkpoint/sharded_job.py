"""A training script for islands of two processes that FSDP2 makes one, in jobs that are killed.

JOB_METHOD: diloco, or replicas. JOB_ROUNDS: how many rounds (or steps) in all. JOB_FOLDER: gets a
file of each process, `<island>.<shard>`: a line of JSON for the round it begins with, and for each
that it has ended, with the digest of what it holds then; and `model.pt`, whole, at the end. Data
follow from the round.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import atoll
from atoll.methods.layout import local_of
from atoll.state.manifest import bytes_of, digest

STEPS = 2
PAUSE_S = 0.1  # so that there is time to kill it


def model(size: int) -> nn.Module:
    """The last layer is too small for all shards: one has nothing of it."""
    torch.manual_seed(0)
    found = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    fully_shard(found, mesh=init_device_mesh("cpu", (size,)))
    return found


def batch_of(step: int, island: str, rank: int, size: int) -> Tensor:
    seed = 10 * step + int(island.rpartition("-")[2])
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(seed)).chunk(size)[rank]


def say(out: TextIO, kind: str, round_: int, held: Iterable[Tensor]) -> None:
    parts = [local_of(tensor.detach()).reshape(-1).float() for tensor in held]
    line = {"kind": kind, "round": round_, "held": digest(bytes_of(torch.cat(parts)))}
    out.write(json.dumps(line) + "\n")
    out.flush()


def save_whole(trained: Any) -> None:
    """As torch puts it together; the same on all islands."""
    whole = {name: p.full_tensor().detach() for name, p in trained.named_parameters()}
    if dist.get_rank() == 0 and os.environ["ATOLL_ISLAND"] == "island-0":
        torch.save(whole, Path(os.environ["JOB_FOLDER"]) / "model.pt")


def diloco(session: Any, trained: nn.Module, rounds: int, out: TextIO, batch: Any) -> None:
    inner = torch.optim.SGD(trained.parameters(), lr=0.1)
    outer = atoll.DiLoCo(session, trained, inner, sync_every=STEPS)

    def held() -> list[Tensor]:
        state = outer.state_dict()
        return [state["theta"], state["momentum"]]

    say(out, "begins", outer.round, held())
    while outer.round < rounds:
        for step in range(STEPS):
            trained(batch(outer.round * STEPS + step)).square().mean().backward()
            inner.step()
            inner.zero_grad()
            outer.step()
        say(out, "round", outer.round, held())
        time.sleep(PAUSE_S)
    with outer.shared_weights():
        save_whole(trained)


def replicas(session: Any, trained: nn.Module, rounds: int, out: TextIO, batch: Any) -> None:
    adamw = torch.optim.AdamW(trained.parameters(), lr=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, 100)
    ddp = atoll.FaultTolerantDDP(session, trained)
    optimizer = atoll.FaultTolerantOptimizer(ddp, adamw, scheduler=cosine)

    def held() -> list[Tensor]:
        entries = [adamw.state.get(parameter, {}) for parameter in trained.parameters()]
        state = [value for each in entries for _, value in sorted(each.items())]
        return [*trained.parameters(), *state, torch.tensor(cosine.get_last_lr())]

    say(out, "begins", ddp.step, held())
    while ddp.step < rounds:
        optimizer.zero_grad()
        ddp(batch(ddp.step)).square().mean().backward()
        assert optimizer.step()
        say(out, "round", ddp.step, held())
        time.sleep(PAUSE_S)
    save_whole(trained)


def main() -> None:
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    island, rounds = os.environ["ATOLL_ISLAND"], int(os.environ["JOB_ROUNDS"])
    train = {"diloco": diloco, "replicas": replicas}[os.environ["JOB_METHOD"]]
    with (
        (Path(os.environ["JOB_FOLDER"]) / f"{island}.{rank}").open("a") as out,
        atoll.join({"metrics_port": -1}) as session,
    ):
        train(session, model(size), rounds, out, lambda step: batch_of(step, island, rank, size))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
