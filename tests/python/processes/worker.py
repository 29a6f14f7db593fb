"""A training script whose rounds are almost all transfer, for killing it in the middle of one."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

import atoll

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "diloco": ("DiLoCo", {}),
    "delayed": ("DiLoCo", {"overlap": "delayed", "codec": "int8"}),
    "streaming": ("StreamingDiLoCo", {"fragments": 2, "overlap": 1}),
    "sparse": ("SparseLoCo", {}),
}


class Blocks(torch.nn.Module):
    """So many parameters, in two blocks."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            torch.nn.Linear(elements // 2, 1, bias=False) for _ in range(2)
        )


class Numbers:
    """Sample i is the number i."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--sync-every", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--plan", default="auto")
    parser.add_argument("--method", choices=METHODS, default="diloco")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--step-s", type=float, default=0.0, help="how long a step sleeps")
    args = parser.parse_args()

    model = Blocks(args.elements).to(args.device)
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    with atoll.join() as session:
        kind, settings = METHODS[args.method]
        chosen = {"plan": args.plan, **settings} if kind != "SparseLoCo" else settings
        outer = getattr(atoll, kind)(session, model, inner, sync_every=args.sync_every, **chosen)
        data = Numbers(args.samples)
        for batch in session.batches(data, batch_size=args.batch_size, epochs=args.epochs):
            scale = 1.0 + batch.mean() / len(data)
            loss = sum((part.weight * scale - 1.0).square().mean() for part in model.blocks)
            loss.backward()
            inner.step()
            time.sleep(args.step_s)
            inner.zero_grad()
            outer.step(loss)


if __name__ == "__main__":
    main()
