"""A layer's parameters as one flat vector, and the canonical numbers made of such vectors.

Shapes in comments: n elements of a layer's flat vector, a multiple of ALIGNMENT.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import xxhash

from atoll.elastic.identity import ALIGNMENT
from atoll.errors import MisuseError, TensorError

if TYPE_CHECKING:
    from torch import Tensor, nn

NORM_BLOCK = 4096
"""Elements whose squares are summed up by torch; the blocks' sums are added exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one parameter lies in its layer's flat vector."""

    name: str
    begin: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.begin + math.prod(self.shape)


def places(layer: nn.Module, *, without: AbstractSet[str] = frozenset()) -> tuple[Place, ...]:
    """Each trained parameter, in the module's own order, at the next multiple of ALIGNMENT.

    without: names of those that have their place elsewhere. Raises TensorError for parameters that
    are not float32: updates are exact functions of it.
    """
    found, begin = [], 0
    for name, parameter in layer.named_parameters():
        if not parameter.requires_grad or name in without:
            continue
        if parameter.dtype != torch.float32:
            raise TensorError(
                f"parameter {name} is {parameter.dtype}; elastic islands train float32"
            )
        found.append(Place(name=name, begin=begin, shape=tuple(parameter.shape)))
        begin = size_of(found)
    return tuple(found)


def size_of(layer_places: Sequence[Place]) -> int:
    """Elements of the flat vector."""
    end = layer_places[-1].end if layer_places else 0
    return -(-end // ALIGNMENT) * ALIGNMENT


def flatten(layer_places: Sequence[Place], tensors: Iterable[Tensor | None]) -> Tensor:
    """The tensors, one for each place (None: zeros), as a new flat vector [n]; gaps are 0."""
    flat = torch.zeros(size_of(layer_places))
    for place, tensor in zip(layer_places, tensors, strict=True):
        if tensor is not None:
            flat[place.begin : place.end].view(place.shape).copy_(tensor)
    return flat


def bind(layer: nn.Module, layer_places: Sequence[Place]) -> Tensor:
    """Moves the layer's parameters into a new flat vector [n], and returns it.

    The parameters are views of it from now on: what is written into it is what the layer computes
    with. Every view begins at a multiple of 256 bytes, as matrix kernels may round differently at
    other addresses.
    """
    parameters = dict(layer.named_parameters())
    flat = flatten(layer_places, (parameters[place.name].detach() for place in layer_places))
    for place in layer_places:
        parameters[place.name].data = flat[place.begin : place.end].view(place.shape)
    return flat


def add(left: Tensor, right: Tensor) -> Tensor:
    """One addition of the gradient tree; overwrites `left`."""
    return left.add_(right)


def digest(*tensors: Tensor) -> str:
    """32 hexadecimal digits of the tensors' bytes (XXH3)."""
    state = xxhash.xxh3_128()
    for tensor in tensors:
        state.update(tensor.contiguous().numpy().data)
    return state.hexdigest()


def squares(shard: Tensor) -> list[float]:
    """The sums of squares of a vshard's gradient in fp64, one for each block of NORM_BLOCK.

    Blocks begin with the vshard, which is cut once for the whole run: whoever owns it, they are
    the same blocks.
    """
    doubles = shard.double()
    return [float(block.square().sum()) for block in torch.split(doubles, NORM_BLOCK)]


def gradient_norm(blocks: Iterable[float]) -> float:
    """The L2 norm of the gradient, from the `squares` of all vshards; inf or nan if any is.

    The sum is exact before it is rounded (math.fsum), so it has no order.
    """
    found = list(blocks)
    try:
        return math.sqrt(math.fsum(found))
    except (OverflowError, ValueError):
        return math.nan if any(map(math.isnan, found)) else math.inf


def clip_factor(norm: float, max_norm: float | None) -> float:
    """What gradients are multiplied by: 1.0 if they are short enough or nothing is clipped."""
    if max_norm is None or norm <= max_norm:
        return 1.0
    return max_norm / norm


def total_loss(by_micro_batch: Sequence[float]) -> float:
    """The step's loss: each micro-batch's share of it, added exactly and rounded once."""
    if not by_micro_batch:
        raise MisuseError("a step has at least one micro-batch")
    return math.fsum(by_micro_batch)
