"""Train a byte-level GPT with fault-tolerant data parallelism: every step is everybody's.

Alone:                python examples/train_ddp.py
Three replicas:       atoll run --standalone --islands 3 examples/train_ddp.py
One replica more:     atoll run --join HOST:PORT examples/train_ddp.py

A step's batch is 8 micro-batches, spread over whoever is there: kill a replica, and the others do
the running step again; the losses are those of a run in which nothing happened.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import corpus
import torch
from gpt import GPT, Config
from torch import Tensor
from torch.utils.data import default_collate

import atoll


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, default=500, help="optimizer steps to train for (500)")
    add("--micro-batches", type=int, default=8, help="of a step, over all replicas (8)")
    add("--micro-batch-size", type=int, default=4, help="sequences in one (4)")
    add("--lr", type=float, default=5e-4, help="learning rate of AdamW (0.0005)")
    add("--layers", type=int, default=3, help="(3)")
    add("--width", type=int, default=96, help="(96)")
    add("--block", type=int, default=64, help="bytes in a sequence (64)")
    add("--seed", type=int, default=0, help="of the first parameters and the data (0)")
    add("--show-every", type=int, default=20, help="steps between two lines (20)")
    add("--max-bytes", type=int, help="train on a sample of the corpus of this size (all of it)")
    return parser.parse_args()


def micro_batch(
    blocks: corpus.Blocks, args: argparse.Namespace, step: int, index: int
) -> tuple[Tensor, Tensor]:
    """x and y, both [micro-batch size, block]: a function of step and index, not of a replica."""
    generator = torch.Generator().manual_seed((args.seed << 40) + (step << 12) + index)
    chosen = torch.randint(len(blocks), (args.micro_batch_size,), generator=generator)
    x, y = default_collate([blocks[int(i)] for i in chosen])
    return x, y


def main() -> None:
    args = arguments()
    blocks = corpus.Blocks(corpus.load(max_bytes=args.max_bytes).train, args.block)
    torch.manual_seed(args.seed)
    model = GPT(Config(block=args.block, layers=args.layers, width=args.width))

    with atoll.join() as session:
        ddp = atoll.FaultTolerantDDP(
            session, model, batch="fixed", micro_batches=args.micro_batches
        )
        adamw = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95))
        optimizer = atoll.FaultTolerantOptimizer(ddp, adamw)

        def losses() -> Iterator[float]:
            for index in ddp.micro_batches():
                loss = model.loss(*micro_batch(blocks, args, ddp.step, index))
                loss.backward()
                yield float(loss.detach())

        while ddp.step < args.steps and not session.leaving:
            optimizer.zero_grad()
            step, mine = ddp.step, list(losses())
            if not optimizer.step():
                print(f"step {step}: a replica was lost; once more with {ddp.slots}", flush=True)
            elif step % args.show_every == 0 and mine:
                mean = sum(mine) / len(mine)
                print(f"step {step}: loss {mean:.3f}, {ddp.slots} replicas", flush=True)


if __name__ == "__main__":
    main()
