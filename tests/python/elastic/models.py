"""A small GPT as a list of layers, and its data: what the tests of bits train.

Shapes in comments: B sequences, T positions, C width, H heads, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atoll.elastic.adamw import AdamW
from atoll.elastic.identity import key
from atoll.elastic.keyed import Dropout, generator
from atoll.elastic.local import LocalIsland
from atoll.elastic.oracle import Oracle
from atoll.elastic.task import Task

SEQUENCES, POSITIONS, WIDTH, HEADS, VOCABULARY = 2, 7, 24, 3, 37


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.dropout = Dropout(0.1)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T] -> [B, T, C]
        return self.dropout(self.tokens(tokens) + self.positions.weight)


class Block(nn.Module):
    """Both kinds of dropout, GELU, and a transposed view that leaves its layer: traps for bits."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout, self.plain_dropout = Dropout(0.1), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, C] -> [B, T, C]
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # [B, H, T, C / H]
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        x = x + self.plain_dropout(self.down(F.gelu(self.up(self.norm2(x)))))
        return x.transpose(0, 1).contiguous().transpose(0, 1)  # not contiguous


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.logits = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, C] -> [B, T, V]
        return self.logits(self.norm(x))


def batch(step: int, micro_batch: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets [B, T]."""
    tokens = torch.randint(
        VOCABULARY, (SEQUENCES, POSITIONS + 1), generator=generator(key(99, step, micro_batch))
    )
    return tokens[:, :-1], tokens[:, 1:]


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def task(*, blocks: int = 3, micro_batches: int = 6, vshards: int = 6, tied: bool = False) -> Task:
    """tied: the head's weight is the embedding's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        layers = [Embedding(), *(Block() for _ in range(blocks)), Head()]
        if tied:
            layers[-1].logits.weight = layers[0].tokens.weight
    return Task(
        seed=7,
        micro_batches=micro_batches,
        vshards=vshards,
        layers=layers,
        batch=batch,
        loss=loss,
        tokens=micro_batches * SEQUENCES * POSITIONS,
        optimizer=AdamW(lr=3e-2, weight_decay=0.1),
        max_norm=0.5,
        learning_rate=lambda step: 3e-2 / (1 + step),
    )


def assert_equal(island: LocalIsland, oracle: Oracle) -> None:
    """Bit for bit: each vshard's owner, its backup, and the parameters of all workers."""
    assert island.step == oracle.step
    spine = island.spine
    for shard in spine.shards():
        layer, moments = oracle.layers[shard[0]], oracle.moments[shard[0]]
        begin, end = spine.bounds(shard)
        backup = island.layout.backup(shard)
        states = [island.shard(shard)]
        if backup is not None:
            states.append(island.workers[backup].shadows[shard])
        for state in states:
            assert state.version == oracle.step
            assert torch.equal(state.p, layer.parameters[begin:end])
            assert torch.equal(state.m, moments.m[begin:end])
            assert torch.equal(state.v, moments.v[begin:end])
    for worker in island.workers.values():
        for index, held in worker.layers.items():
            assert torch.equal(held.parameters, oracle.layers[index].parameters)
            for tie, values in held.tied.items():
                home = oracle.layers[tie.home].parameters
                assert torch.equal(values, home[tie.begin : tie.end])
