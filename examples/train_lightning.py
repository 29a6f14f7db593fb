"""Train a small network with Lightning's Trainer, on generated numbers.

Alone:            python examples/train_lightning.py
As two islands:   atoll run --standalone --islands 2 examples/train_lightning.py
"""

from __future__ import annotations

import argparse
import hashlib

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from atoll.trainers.lightning import AtollCallback


class Regression(LightningModule):
    """Learns y = sin(x1) * x2."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
        )

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        x, y = batch
        return torch.nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def digest_of(model: torch.nn.Module) -> str:
    """Of all parameters, to compare islands by."""
    data = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    return hashlib.sha256(data).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="of the optimizer (400)")
    parser.add_argument("--sync-every", type=int, default=20, help="steps in a round (20)")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches in a step (1)")
    args = parser.parse_args()

    seed_everything(0, verbose=False)
    x = 4 * torch.rand(4096, 2) - 2
    data = TensorDataset(x, torch.sin(x[:, :1]) * x[:, 1:])
    outer = AtollCallback(sync_every=args.sync_every)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=args.steps,
        accumulate_grad_batches=args.accumulate,
        callbacks=[outer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Regression()
    trainer.fit(model, DataLoader(data, batch_size=16, shuffle=True))
    rounds = outer.rounds.method.round
    print(f"after round {rounds} the parameters are {digest_of(model)}", flush=True)


if __name__ == "__main__":
    main()
