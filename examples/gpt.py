"""A small GPT: pre-norm blocks, rotary positions, RMS norm, squared ReLU, tied embeddings.

Shapes in comments: B sequences, T positions, C width, H heads, D = C / H, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The shape of a model. The default has about 0.4 M parameters."""

    vocabulary: int = 256
    block: int = 64  # longest sequence
    layers: int = 3
    heads: int = 4
    width: int = 96

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            # Rotary positions turn pairs of a head's coordinates.
            raise ValueError(f"width {self.width} is no multiple of 2 x {self.heads} heads")


class GPT(nn.Module):
    """Predicts the next token at every position."""

    cos: Tensor  # [T, D / 2]
    sin: Tensor  # [T, D / 2]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        cos, sin = rotations(config.block, config.width // config.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.apply(_initialize)
        for block in self.blocks:
            assert isinstance(block, Block)
            # A block begins as the identity: what it adds to the stream starts at zero.
            nn.init.zeros_(block.attention_out.weight)
            nn.init.zeros_(block.mlp_out.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, T, V] for tokens [B, T]."""
        length = tokens.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        x = self.embedding(tokens)  # [B, T, C]
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(self.norm(x), self.embedding.weight)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats a token, for tokens and targets [B, T]."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


class Block(nn.Module):
    """Causal self-attention and a perceptron, each added to the stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention_in = nn.Linear(config.width, 3 * config.width, bias=False)
        self.attention_out = nn.Linear(config.width, config.width, bias=False)
        self.mlp_norm = nn.RMSNorm(config.width)
        self.mlp_in = nn.Linear(config.width, 4 * config.width, bias=False)
        self.mlp_out = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attend(self.attention_norm(x), cos, sin)
        hidden = F.relu(self.mlp_in(self.mlp_norm(x))).square()  # [B, T, 4C]
        added: Tensor = self.mlp_out(hidden)
        return x + added

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        qkv = self.attention_in(x).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, H, D]
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, H, T, D]
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.attention_out(mixed.transpose(1, 2).flatten(2))  # [B, T, C]
        return out


def rotations(length: int, size: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Return cosine and sine [length, size / 2] of the rotary angles t * base^(-2i / size).

    arXiv 2104.09864, equation 15.
    """
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)  # [size / 2]
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the coordinate pairs (i, i + D / 2) of x [B, H, T, D] by the angles of cos and sin."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, nn.Embedding):
        # The head is tied to it: logits of a normalised stream then have a deviation near 0.2.
        nn.init.normal_(module.weight, std=0.02)
