"""A training job on a host of the laboratory: real methods, inner steps of a fixed time.

What is measured is the time lost to communication, so a step's computation is a sleep that ends so
long after the step began, whatever the optimizer took of it.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

import atoll
from atoll.session import Session


class Blocks(nn.Module):
    """`blocks` equal vectors, which together have `parameters` numbers."""

    def __init__(self, parameters: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Module() for _ in range(blocks))
        for block in self.blocks:
            block.weight = nn.Parameter(torch.zeros(parameters // blocks))


def train(session: Session, asked: dict[str, Any]) -> dict[str, Any]:
    """Trains `rounds` rounds after one that does not count; says how much of them was computing.

    asked: method (diloco, streaming), parameters, blocks, step_s, sync_every, rounds, and of
    streaming also fragments, overlap (steps) and codec.
    """
    model = Blocks(asked["parameters"], asked["blocks"])
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    for number, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    every = asked["sync_every"]
    outer: atoll.DiLoCo | atoll.StreamingDiLoCo
    if asked["method"] == "diloco":
        outer = atoll.DiLoCo(session, model, inner, sync_every=every)
    else:
        chosen = {key: asked[key] for key in ("fragments", "overlap", "codec")}
        outer = atoll.StreamingDiLoCo(session, model, inner, sync_every=every, **chosen)

    def rounds(count: int) -> float:
        began_s = time.monotonic()
        for _ in range(count * every):
            step_ends_s = time.monotonic() + asked["step_s"]
            inner.step()
            time.sleep(max(0.0, step_ends_s - time.monotonic()))
            outer.step()
        return time.monotonic() - began_s

    rounds(1)
    took_s = rounds(asked["rounds"])
    outer.finish()
    return {
        "compute_utilization": asked["rounds"] * every * asked["step_s"] / took_s,
        "round_s": took_s / asked["rounds"],
    }
