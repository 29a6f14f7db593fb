"""A training script whose rounds are almost all transfer, for killing it in the middle of one."""

from __future__ import annotations

import argparse

import torch

import atoll


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
    args = parser.parse_args()

    model = torch.nn.Linear(args.elements, 1, bias=False)
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    with atoll.join() as session:
        outer = atoll.DiLoCo(session, model, inner, sync_every=args.sync_every, plan=args.plan)
        data = Numbers(args.samples)
        for batch in session.batches(data, batch_size=args.batch_size, epochs=args.epochs):
            loss = (model.weight * (1.0 + batch.mean() / len(data)) - 1.0).square().mean()
            loss.backward()
            inner.step()
            inner.zero_grad()
            outer.step(loss)


if __name__ == "__main__":
    main()
