"""A replica with TorchFT over gloo. Started by compare.py, in the peers' environment.

TORCHFT_LIGHTHOUSE is set. PEERS_TIMEOUT_S and PEERS_HEARTBEAT_MS replace its defaults (60, 100).
With PEERS_DDP=1 gradients are exchanged by its DistributedDataParallel, whose hook (0.2.0) ends the
process with a bare AssertionError when a collective over gloo fails; otherwise by one
`Manager.allreduce`, which reports the failure as it should.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo
from training import Step, serve


def by_hook(ddp: torch.nn.Module) -> Callable[[torch.Tensor], None]:
    return lambda batch: ddp(batch).square().mean().backward()


def by_hand(
    manager: Manager, model: torch.nn.Module, about_to_send: Callable[[], None]
) -> Callable[[torch.Tensor], None]:
    parameters = list(model.parameters())

    def backward(batch: torch.Tensor) -> None:
        model(batch).square().mean().backward()
        flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        manager.wait_quorum()  # as allreduce does, or who stops here is not in the collective
        about_to_send()
        manager.allreduce(flat).wait()
        parts = flat.split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    return backward


def join(
    model: torch.nn.Module, inner: torch.optim.Optimizer, about_to_send: Callable[[], None]
) -> Step:
    options: dict[str, Any] = {}
    timeout = timedelta(seconds=float(os.environ.get("PEERS_TIMEOUT_S", "60")))
    options |= {"timeout": timeout, "quorum_timeout": timeout, "connect_timeout": timeout}
    if interval := os.environ.get("PEERS_HEARTBEAT_MS"):
        options["heartbeat_interval"] = timedelta(milliseconds=float(interval))
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def load(state: dict[str, Any]) -> None:
        model.load_state_dict(state["model"])
        inner.load_state_dict(state["inner"])

    manager = Manager(
        pg=ProcessGroupGloo(timeout=timeout),
        load_state_dict=load,
        state_dict=lambda: {"model": model.state_dict(), "inner": inner.state_dict()},
        min_replica_size=1,
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        hostname="127.0.0.1",
        replica_id=os.environ["PEERS_REPLICA"],
        **options,
    )
    optimizer = Optimizer(manager, inner)
    if os.environ.get("PEERS_DDP"):
        backward = by_hook(DistributedDataParallel(manager, model))
    else:
        backward = by_hand(manager, model, about_to_send)

    def step(batch: torch.Tensor) -> int:
        assert store.port
        before = manager.current_step()
        optimizer.zero_grad()
        backward(batch)
        optimizer.step()
        return manager.num_participants() if manager.current_step() > before else 0

    return step


if __name__ == "__main__":
    serve(join)
