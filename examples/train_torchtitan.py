"""Train a tiny Llama of torchtitan with the library's own Trainer, on generated text.

Alone:            atoll run --standalone --islands 1 examples/train_torchtitan.py
As two islands:   atoll run --standalone --islands 2 examples/train_torchtitan.py

Needs torchtitan 0.2 and an accelerator, which islands may share. Nothing is downloaded: the model
is made from its own arguments, and the data count.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torchtitan.components.dataloader import ParallelAwareDataloader
from torchtitan.config import JobConfig
from torchtitan.models.llama3 import TransformerModelArgs, get_train_spec
from torchtitan.protocols.train_spec import register_train_spec
from torchtitan.tools.logging import init_logger
from torchtitan.train import Trainer

from atoll.trainers.torchtitan import on_island

VOCABULARY = 64


class Counting(torch.utils.data.IterableDataset):
    """Sequences that count from somewhere by a stride, modulo the vocabulary, without end. Each
    island draws its own, and each of its processes."""

    def __init__(self, length: int, dp_rank: int) -> None:
        island = os.environ.get("ATOLL_ISLAND", "alone")
        self._length, self._seed = length, zlib.crc32(f"{island} {dp_rank}".encode())

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            first, stride = torch.randint(1, VOCABULARY, (2,), generator=generator).tolist()
            tokens = (first + stride % 7 * torch.arange(self._length + 1)) % VOCABULARY
            yield {"input": tokens[:-1]}, tokens[1:]


def make_loader(dp_world_size: int, dp_rank: int, job_config: JobConfig, **_: Any) -> Any:
    """As torchtitan asks for one."""
    return ParallelAwareDataloader(
        Counting(job_config.training.seq_len, dp_rank),
        dp_rank=dp_rank,
        dp_world_size=dp_world_size,
        batch_size=job_config.training.local_batch_size,
    )


def configured(steps: int, accumulate: int, folder: str) -> JobConfig:
    """torchtitan's configuration of it all."""
    spec = dataclasses.replace(
        get_train_spec(),
        model_args={
            "tiny": TransformerModelArgs(dim=64, n_layers=2, n_heads=2, vocab_size=VOCABULARY)
        },
        build_dataloader_fn=make_loader,
        build_tokenizer_fn=None,
        build_validator_fn=None,
        state_dict_adapter=None,
    )
    register_train_spec("counting", spec)
    config = JobConfig()
    config.job.dump_folder = folder
    config.model.name, config.model.flavor = "counting", "tiny"
    config.training.steps, config.training.seq_len = steps, 32
    config.training.local_batch_size = 8
    config.training.global_batch_size = 8 * accumulate * int(os.environ.get("WORLD_SIZE", "1"))
    config.optimizer.lr = 3e-3
    config.lr_scheduler.warmup_steps = 2
    config.activation_checkpoint.mode = "none"
    config.debug.seed = 0
    return config


def digest_of(model: torch.nn.Module) -> str:
    """Of all parameters, to compare islands by."""
    whole = (getattr(p, "full_tensor", lambda p=p: p)() for p in model.parameters())
    data = b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in whole)
    return hashlib.sha256(data).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="of the optimizer (200)")
    parser.add_argument("--sync-every", type=int, default=10, help="steps in a round (10)")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches in a step (1)")
    args = parser.parse_args()

    init_logger()
    with tempfile.TemporaryDirectory() as folder:
        config = configured(args.steps, args.accumulate, folder)
        trainer = on_island(Trainer, sync_every=args.sync_every)(config)
        try:
            trainer.train()
        finally:
            trainer.close()
    rounds = trainer.rounds.method.round
    digest = digest_of(trainer.model_parts[0])
    if torch.distributed.get_rank() == 0:
        print(f"after round {rounds} the parameters are {digest}", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
