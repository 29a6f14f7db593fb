"""A training script for jobs that are killed: says which state it begins with, and its rounds."""

from __future__ import annotations

import argparse
import time

import torch
import xxhash

import atoll

SAMPLES = 600


class Numbers:
    """Sample i is the number i."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pause-s", type=float, default=0.02)
    args = parser.parse_args()

    model = torch.nn.Linear(60_000, 1)
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    with atoll.join() as session:
        outer = atoll.DiLoCo(session, model, inner, sync_every=2)
        state = outer.state_dict()
        digest = xxhash.xxh3_128_hexdigest(
            state["theta"].numpy().tobytes() + state["momentum"].numpy().tobytes()
        )
        print(f"BEGINS {outer.round} {digest}", flush=True)
        for batch in session.batches(Numbers(), batch_size=2, epochs=1):
            time.sleep(args.pause_s)  # so that there is time to kill it
            loss = (model.weight * (1.0 + batch.mean() / SAMPLES) - 1.0).square().mean()
            loss.backward()
            inner.step()
            inner.zero_grad()
            outer.step(loss)


if __name__ == "__main__":
    main()
