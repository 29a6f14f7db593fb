"""Train a tiny Llama of transformers with the library's own Trainer, on generated text.

Alone:            python examples/train_hf.py
As two islands:   atoll run --standalone --islands 2 examples/train_hf.py

Nothing is downloaded: the model is made from a configuration, and the data count.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from atoll.trainers.huggingface import AtollCallback

VOCABULARY = 64


class Counting(torch.utils.data.Dataset):
    """Sample i counts from somewhere by a stride, modulo the vocabulary."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        first, stride = index % VOCABULARY, 1 + index // VOCABULARY % 7
        tokens = (first + stride * torch.arange(32)) % VOCABULARY
        return {"input_ids": tokens, "labels": tokens}


def make_model() -> LlamaForCausalLM:
    """Of 26 thousand parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )


def digest_of(model: torch.nn.Module) -> str:
    """Of all parameters, to compare islands by."""
    data = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    return hashlib.sha256(data).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="of the optimizer (200)")
    parser.add_argument("--sync-every", type=int, default=10, help="steps in a round (10)")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches in a step (1)")
    args = parser.parse_args()

    set_seed(0)
    outer = AtollCallback(sync_every=args.sync_every)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            make_model(),
            TrainingArguments(
                output_dir=folder,
                max_steps=args.steps,
                per_device_train_batch_size=8,
                gradient_accumulation_steps=args.accumulate,
                learning_rate=3e-3,
                logging_steps=args.sync_every,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=Counting(),
            callbacks=[outer],
        )
        trainer.train()
    rounds = outer.rounds.method.round
    print(f"after round {rounds} the parameters are {digest_of(trainer.model)}", flush=True)


if __name__ == "__main__":
    main()
