"""Train a small network in a loop of one's own with Accelerate, on generated numbers.

Alone:            python examples/train_accelerate.py
As two islands:   atoll run --standalone --islands 2 examples/train_accelerate.py
"""

from __future__ import annotations

import argparse
import hashlib

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import TensorDataset

import atoll


def digest_of(model: torch.nn.Module) -> str:
    """Of all parameters, to compare islands by."""
    data = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    return hashlib.sha256(data).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="outer steps to train for (20)")
    parser.add_argument("--sync-every", type=int, default=20, help="batches in a round (20)")
    parser.add_argument("--accumulate", type=int, default=2, help="batches in an inner step (2)")
    args = parser.parse_args()

    set_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=args.accumulate)
    x = 4 * torch.rand(4096, 2) - 2
    dataset = TensorDataset(x, torch.sin(x[:, :1]) * x[:, 1:])  # y = sin(x1) * x2
    model = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, inner = accelerator.prepare(model, inner)

    with atoll.join() as session:
        bare = accelerator.unwrap_model(model)  # as it is called in checkpoints
        outer = atoll.DiLoCo(session, bare, inner, sync_every=args.sync_every)
        for batch in session.batches(dataset, batch_size=16, rounds=args.rounds):
            inputs, labels = (tensor.to(accelerator.device) for tensor in batch)
            with accelerator.accumulate(model):
                loss = torch.nn.functional.mse_loss(model(inputs), labels)
                accelerator.backward(loss)
                inner.step()
                inner.zero_grad()
            outer.step(loss)
        print(f"after round {outer.round} the parameters are {digest_of(model)}", flush=True)


if __name__ == "__main__":
    main()
