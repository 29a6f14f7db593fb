"""A whole model as the list of layers that an elastic island trains, with the model's own bits.

What a model's `forward` does cannot be read from its modules, so common shapes are recognised by
their parts, and the list is compared with the model on an example before anybody trains it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from atoll.errors import MisuseError

if TYPE_CHECKING:
    from torch import Tensor

BY_HAND = "write its list of layers by hand, as examples/elastic_gpt.py does"

GPT2 = ("wte", "wpe", "drop", "h", "ln_f")
"""What transformers' GPT-2 consists of, and nanoGPT."""

LLAMA = ("embed_tokens", "layers", "norm", "rotary_emb")
"""What transformers' Llama, Mistral, Qwen2, Qwen3 and others consist of."""


def split_layers(
    model: nn.Module,
    example: Tensor,
    *,
    untie: bool = False,
    output: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> list[nn.Module]:
    """The model as layers that take and return one tensor each; islands train copies of them.

    A parameter of several layers (a head tied to the embedding, a block used twice) is trained as
    one.

    Splits an nn.Sequential (those within it, too); a module whose parts are, in this order, an
    embedding or two (the second of positions), others, one nn.ModuleList of blocks, others; and
    causal language models of transformers that are built as GPT-2 or Llama are.

    example: inputs of one micro-batch, [B, T] tokens or what the model takes. output: what the last
    layer returns, of the whole model; without it model(example), and its `logits` if it has some.
    untie: where layers share a parameter each gets its own, equal at first, and trained apart.
    Raises MisuseError for a model that cannot be split.
    """
    layers = _layers(model)
    _check_parameters(model, layers)
    _check_bits(model, layers, example, output or _output)
    return _separated(layers) if untie else layers


class TokensAndPositions(nn.Module):
    """[B, T] tokens to the stream [B, T, C]."""

    def __init__(self, tokens: nn.Module, positions: nn.Module, rest: Sequence[nn.Module]) -> None:
        super().__init__()
        self.tokens, self.positions, self.rest = tokens, positions, nn.Sequential(*rest)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        out: Tensor = self.rest(self.tokens(tokens) + self.positions(places))
        return out


class Block(nn.Module):
    """[B, T, C] to [B, T, C]: a block that returns the stream, or a tuple that begins with it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return _first(self.block(x))


class RotaryBlock(nn.Module):
    """[B, T, C] to [B, T, C]: a block that is told the positions' rotations."""

    def __init__(self, block: nn.Module, rotary: nn.Module) -> None:
        super().__init__()
        self.block, self.rotary = block, rotary

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        angles = self.rotary(x, position_ids=places)
        return _first(
            self.block(x, attention_mask=None, position_ids=places, position_embeddings=angles)
        )


def _first(found: Any) -> Tensor:
    out: Tensor = found[0] if isinstance(found, tuple) else found
    return out


def _output(model: nn.Module, example: Tensor) -> Tensor:
    found = model(example, use_cache=False) if _attention(model) else model(example)
    out: Tensor = found.logits if hasattr(found, "logits") else found
    return out


def _attention(model: nn.Module) -> str | None:
    """How a model of transformers computes attention; None for others."""
    found: str | None = getattr(getattr(model, "config", None), "_attn_implementation", None)
    return found


# ---- shapes of models ----------------------------------------------------------------------------


def _layers(model: nn.Module) -> list[nn.Module]:
    if isinstance(model, nn.Sequential):
        return _flat(model)
    name = type(model).__name__
    if _attention(model) not in (None, "sdpa"):
        raise MisuseError(
            f"{name} masks attention in another way than its blocks alone do: make it with "
            'attn_implementation="sdpa"'
        )
    head = getattr(model, "lm_head", None)
    gpt2 = _parts(model, "transformer", GPT2)
    if gpt2 is not None and head is not None:
        wte, wpe, drop, blocks, norm = gpt2
        stream = TokensAndPositions(wte, wpe, [drop])
        return [stream, *map(Block, blocks), nn.Sequential(norm, head)]
    llama = _parts(model, "model", LLAMA)
    if llama is not None and head is not None:
        embed, blocks, norm, rotary = llama
        rotated = (RotaryBlock(block, rotary) for block in blocks)
        return [embed, *rotated, nn.Sequential(norm, head)]
    return _in_order(model)


def _flat(model: nn.Sequential) -> list[nn.Module]:
    found: list[nn.Module] = []
    for part in model:
        found += _flat(part) if isinstance(part, nn.Sequential) else [part]
    return found


def _parts(model: nn.Module, inner: str, names: Sequence[str]) -> list[Any] | None:
    """These parts of a model's part; None if it is built otherwise."""
    found = getattr(model, inner, None)
    if found is None or not all(hasattr(found, name) for name in names):
        return None
    return [getattr(found, name) for name in names]


def _in_order(model: nn.Module) -> list[nn.Module]:
    """Modules in the order in which they were assigned."""
    name = type(model).__name__
    parts = list(model.children())
    lists = [index for index, part in enumerate(parts) if isinstance(part, nn.ModuleList)]
    if len(lists) != 1:
        raise MisuseError(
            f"{name} has {len(lists)} lists of blocks (nn.ModuleList), and can be split with one "
            f"only; {BY_HAND}"
        )
    before, blocks, after = parts[: lists[0]], parts[lists[0]], parts[lists[0] + 1 :]
    assert isinstance(blocks, nn.ModuleList)
    if not before or len(blocks) == 0 or not after:
        raise MisuseError(
            f"{name} needs parts before its blocks, a block, and parts after them; {BY_HAND}"
        )
    if len(before) > 1 and all(isinstance(part, nn.Embedding) for part in before[:2]):
        first: nn.Module = TokensAndPositions(before[0], before[1], before[2:])
    else:
        first = nn.Sequential(*before)
    return [first, *map(Block, blocks), nn.Sequential(*after)]


# ---- whether they are the model ------------------------------------------------------------------


def _check_parameters(model: nn.Module, layers: Sequence[nn.Module]) -> None:
    held = {id(parameter) for layer in layers for parameter in layer.parameters()}
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in held]
    if left:
        raise MisuseError(
            f"{left[0]} of {type(model).__name__} would be in none of {len(layers)} layers; "
            f"{BY_HAND}"
        )


def _check_bits(
    model: nn.Module,
    layers: Sequence[nn.Module],
    example: Tensor,
    output: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    name = type(model).__name__
    modes = {part: part.training for whole in (model, *layers) for part in whole.modules()}
    for part in modes:
        part.training = False
    try:
        with torch.no_grad():
            right = output(model, example)
            x = example
            for index, layer in enumerate(layers):
                try:
                    x = layer(x)
                except (RuntimeError, TypeError, ValueError, IndexError) as error:
                    first = str(error).partition("\n")[0]
                    raise MisuseError(
                        f"{name} cannot be split: layer {index} of {len(layers)} does not take "
                        f"what the one before returns ({first}); {BY_HAND}"
                    ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    if not isinstance(right, torch.Tensor):
        raise MisuseError(
            f"{name} returns {type(right).__name__}, not a tensor: say with output= what its last "
            "layer returns, such as output=lambda model, x: model(x)[0]"
        )
    if not torch.equal(x, right):
        raise MisuseError(
            f"{name} computes something else than its {len(layers)} parts one after the other; "
            f"{BY_HAND}"
        )


def _separated(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """Every parameter belongs to one layer."""
    known: set[int] = set()
    found: list[nn.Module] = []
    for layer in layers:
        own = {id(parameter) for parameter in layer.parameters()}
        found.append(copy.deepcopy(layer) if own & known else layer)
        known |= own
    return found
