"""Train a byte-level GPT on an elastic island: kill workers, start others, and no bit changes.

Four workers here:    atoll run --elastic --workers 4 examples/elastic_gpt.py
One worker more:      atoll run --join HOST:PORT --elastic --workers 1 examples/elastic_gpt.py
The same, alone:      python examples/elastic_gpt.py --oracle

All print the same losses, whoever dies: compare with `--oracle`, or kill -9 a worker.
"""

from __future__ import annotations

import argparse
from typing import Any

import corpus
import torch
import torch.nn.functional as F
from gpt import Block, Config, rotations
from torch import Tensor, nn

import atoll
from atoll.elastic.adamw import AdamW
from atoll.elastic.identity import key
from atoll.elastic.keyed import Dropout, generator
from atoll.elastic.oracle import Oracle
from atoll.elastic.task import Batch, Task

SEED = 0


class Embed(nn.Module):
    """Tokens [B, T] to the stream [B, T, C]."""

    def __init__(self, config: Config, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.embedding(tokens))
        return out


class Layer(nn.Module):
    """One block with its rotations: [B, T, C] to [B, T, C]."""

    def __init__(self, config: Config, dropout: float) -> None:
        super().__init__()
        self.block = Block(config)
        self.dropout = Dropout(dropout)
        self.cos, self.sin = rotations(config.block, config.width // config.heads)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.block(x, self.cos, self.sin))
        return out


class Head(nn.Module):
    """The stream [B, T, C] to logits [B, T, V]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.width)
        self.logits = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.logits(self.norm(x))
        return out


def make_layers(config: Config, dropout: float) -> list[nn.Module]:
    """Equal on all workers: the seed comes before."""
    torch.manual_seed(SEED)
    blocks = [Layer(config, dropout) for _ in range(config.layers)]
    return [Embed(config, dropout), *blocks, Head(config)]


def make_batch(config: Config, sequences: int) -> Batch:
    """Which blocks of the text are in a micro-batch follows from its name."""
    blocks = corpus.Blocks(corpus.load().train, config.block)

    def batch(step: int, micro_batch: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(
            len(blocks), (sequences,), generator=generator(key(SEED, step, micro_batch))
        )
        pairs = [blocks[int(index)] for index in chosen]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    return batch


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over tokens, in nats."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, default=200, help="steps to train for (200)")
    add("--micro-batches", type=int, default=8, help="micro-batches of a step (8)")
    add("--sequences", type=int, default=4, help="sequences of a micro-batch (4)")
    add("--pipeline", type=int, default=2, help="stages (2)")
    add("--chunks", type=int, default=1, help="stretches of layers of each worker (1)")
    add("--layers", type=int, default=4, help="blocks of the model (4)")
    add("--dropout", type=float, default=0.1, help="probability (0.1)")
    add("--oracle", action="store_true", help="one process, without stages: the same losses")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # sums differ between one thread and two
    config = Config(layers=args.layers)
    task: dict[str, Any] = {
        "seed": SEED,
        "micro_batches": args.micro_batches,
        "vshards": 12,
        "layers": make_layers(config, args.dropout),
        "batch": make_batch(config, args.sequences),
        "loss": loss,
        "tokens": args.micro_batches * args.sequences * config.block,
        "optimizer": AdamW(lr=3e-3, weight_decay=0.1),
    }
    if args.oracle:
        oracle = Oracle(Task(**task))
        while oracle.step < args.steps:
            print(f"step {oracle.step}: loss {oracle.train_step()!r}", flush=True)
        return
    with atoll.join() as session:
        island = atoll.ElasticIsland(session, pipeline=args.pipeline, chunks=args.chunks, **task)
        while island.step < args.steps and not island.over:
            step = island.step
            print(f"step {step}: loss {island.train_step()!r}", flush=True)
        island.close()


if __name__ == "__main__":
    main()
