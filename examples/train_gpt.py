"""Train a byte-level GPT on Python's standard library with DiLoCo, or another method.

Alone:                python examples/train_gpt.py
As three islands:     atoll run --standalone --islands 3 examples/train_gpt.py
One island more:      atoll run --join HOST:PORT examples/train_gpt.py
Another method:       ... examples/train_gpt.py --method streaming
"""

from __future__ import annotations

import argparse

import corpus
import torch
from gpt import GPT, Config
from torch import Tensor, nn
from torch.utils.data import default_collate

import atoll

METHODS = {
    "diloco": ("DiLoCo", {}),
    "diloco-int8": ("DiLoCo", {"codec": "int8"}),
    "delayed": ("DiLoCo", {"overlap": "delayed"}),
    "eager": ("DiLoCo", {"overlap": "eager"}),
    "streaming": ("StreamingDiLoCo", {"overlap": 1, "codec": "fp4"}),
    "noloco": ("NoLoCo", {}),
    "sparseloco": ("SparseLoCo", {}),
    "localsgd": ("LocalSGD", {}),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--method", choices=METHODS, default="diloco", help="docs/methods.md says what each is")
    add("--rounds", type=int, default=100, help="outer steps to train for (100)")
    add("--sync-every", type=int, default=20, help="inner steps between two outer steps (20)")
    add("--batch-size", type=int, default=16, help="sequences in an island's batch (16)")
    add("--lr", type=float, default=5e-4, help="learning rate of the inner AdamW (0.0005)")
    add("--layers", type=int, default=3, help="(3)")
    add("--width", type=int, default=96, help="(96)")
    add("--block", type=int, default=64, help="bytes in a sequence (64)")
    add("--seed", type=int, default=0, help="of the first parameters and the order of data (0)")
    add("--eval-every", type=int, default=1, help="rounds between two evaluations (1)")
    add("--eval-blocks", type=int, default=64, help="held-out sequences in one (64)")
    add("--max-bytes", type=int, help="train on a sample of the corpus of this size (all of it)")
    return parser.parse_args()


def held_out(text: corpus.Bytes, block: int, count: int) -> tuple[Tensor, Tensor]:
    """Return x and y, both [count, block]: the same blocks on every island, spread evenly."""
    blocks = corpus.Blocks(text, block)
    count = min(count, len(blocks))
    x, y = default_collate([blocks[i * len(blocks) // count] for i in range(count)])
    return x, y


@torch.inference_mode()
def evaluate(model: GPT, x: Tensor, y: Tensor) -> float:
    """Return the loss on the held-out sample, in nats a byte."""
    return float(model.loss(x, y))


def main() -> None:
    args = arguments()
    text = corpus.load(max_bytes=args.max_bytes)
    dataset = corpus.Blocks(text.train, args.block)
    x_held_out, y_held_out = held_out(text.validation, args.block, args.eval_blocks)

    torch.manual_seed(args.seed)
    model = GPT(Config(block=args.block, layers=args.layers, width=args.width))
    inner = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95))
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters; "
        f"{len(text.train):,} bytes of text, fingerprint {text.fingerprint}",
        flush=True,
    )

    with atoll.join() as session:
        kind, options = METHODS[args.method]
        if kind == "StreamingDiLoCo":
            options = {**options, "fragments": min(4, args.layers)}
        outer = getattr(atoll, kind)(session, model, inner, sync_every=args.sync_every, **options)

        def report_validation() -> None:
            # What counts are the outer parameters; overlapped methods' models hold others.
            with outer.shared_weights():
                loss = evaluate(model, x_held_out, y_held_out)
            session.report(validation_loss=loss)
            print(f"round {outer.round}: validation loss {loss:.3f}", flush=True)

        if session.rank == 0 and outer.round == 0:
            report_validation()
        for x, y in session.batches(
            dataset, batch_size=args.batch_size, rounds=args.rounds, seed=args.seed
        ):
            loss = model.loss(x, y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            inner.step()
            inner.zero_grad()
            outer.step(loss)

            due = outer.round % args.eval_every == 0 or outer.round == args.rounds
            if outer.just_synced and session.rank == 0 and due:
                report_validation()
        if args.method in ("streaming", "delayed", "eager") and session.rank == 0:
            report_validation()  # with the exchange that was under way at the end


if __name__ == "__main__":
    main()
