"""Where each layer's parameters lie, when some belong to several layers. Pure but for reading them.

A tied parameter has one place, in the flat parameters of its home, the first layer that has it;
so it has one owner, one backup, one state and one update. Another layer that computes with it makes
a gradient of its own, at the end of the vector of its gradients, which goes through the tree of
micro-batches like any other; owners add the layers' sums, the home's first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.elastic import flat
from atoll.elastic.flat import Place
from atoll.elastic.identity import Tie

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One layer's. own: places in its flat parameters, and in its gradients. tied: places of other
    layers' parameters in its gradients, behind its own; ties: the same, in the same order."""

    own: tuple[Place, ...]
    tied: tuple[Place, ...] = ()
    ties: tuple[Tie, ...] = ()


def plans(layers: Sequence[nn.Module]) -> tuple[Plan, ...]:
    """Of all layers. Raises TensorError for parameters that are not float32."""
    homes: dict[int, tuple[int, Place]] = {}
    """By the parameter's id."""
    found = []
    for index, layer in enumerate(layers):
        ids = {name: id(parameter) for name, parameter in layer.named_parameters()}
        elsewhere = {name for name, one in ids.items() if one in homes}
        own = flat.places(layer, without=elsewhere)
        tied: list[Place] = []
        ties: list[Tie] = []
        for name, one in ids.items():
            if name in elsewhere:
                home, there = homes[one]
                at = flat.size_of((*own, *tied))
                tied.append(Place(name=name, begin=at, shape=there.shape))
                ties.append(Tie(home=home, layer=index, begin=there.begin, end=there.end, at=at))
        homes.update((ids[place.name], (index, place)) for place in own)
        found.append(Plan(own=own, tied=tuple(tied), ties=tuple(ties)))
    return tuple(found)
