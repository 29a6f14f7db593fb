"""A replica with atoll, default settings. Started by compare.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from training import Step, serve

import atoll
import atoll.control.client  # like the next ones, otherwise imported by join()
import atoll.replicas.optimizer
import atoll.session
from atoll import _core


def join(
    model: torch.nn.Module, inner: torch.optim.Optimizer, about_to_send: Callable[[], None]
) -> Step:
    session = atoll.join({"metrics_port": -1})
    ddp = atoll.FaultTolerantDDP(session, model)
    optimizer = atoll.FaultTolerantOptimizer(ddp, inner)
    # Backward's first gradient: no bucket has been sent off.
    next(reversed(list(model.parameters()))).register_hook(lambda gradient: about_to_send())

    def step(batch: torch.Tensor) -> int:
        optimizer.zero_grad()
        ddp(batch).square().mean().backward()
        return ddp.slots if optimizer.step() else 0

    return step


if __name__ == "__main__":
    assert _core.__name__
    serve(join)
