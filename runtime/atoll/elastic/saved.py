"""An elastic island's model out of its checkpoints: for evaluating, saving and giving away."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from atoll.checkpoint import read
from atoll.elastic import flat
from atoll.elastic.gate import OUTER_SLOTS, SLOTS
from atoll.elastic.parts import Part, survey
from atoll.elastic.requests import shard_of
from atoll.elastic.ties import plans
from atoll.errors import CheckpointError, MismatchError, MisuseError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atoll.checkpoint.places import Place
    from atoll.checkpoint.read import Entry

logger = logging.getLogger(__name__)


def load_layers(url: str, layers: Sequence[nn.Module]) -> int:
    """Puts the parameters of an elastic island's newest whole checkpoint into `layers`; returns its
    step. No island need run, and none is disturbed.

        model = LlamaForCausalLM(config)
        step = atoll.load_layers("/shared/run7", atoll.split_layers(model, example))
        model.save_pretrained("out")

    url: the session's `checkpoint_url`. layers: those that `ElasticIsland` was given, which share
    their parameters with the model that they were made of (not with split_layers(untie=True)). Of
    an island with an outer method: what the islands shared after their last round.

    A damaged checkpoint is passed over with a warning. Raises CheckpointError when there is no
    whole one, MismatchError when it is of other layers, MisuseError when it is not an elastic
    island's, ConfigError for a URL that cannot be used. `layers` are then as they were.
    """
    url = url.rstrip("/")
    found = survey(url, _are_elastic)
    problem = "there is no checkpoint of an elastic island"
    if found.torn:
        problem = f"of none of {found.torn} checkpoints all parts are there"
    for (step, _), parts in found.whole.items():
        try:
            values = _values(parts)
        except CheckpointError as error:
            problem = str(error)
            logger.warning("step %d is passed over: %s", step, problem)
            continue
        _fill(layers, values, url)
        return step
    raise CheckpointError(f"{url}: nothing can be loaded: {problem}")


def _are_elastic(place: Place, entries: list[Entry]) -> None:
    for entry in entries:
        if entry.manifest is not None and "layout" not in entry.manifest.values:
            raise MisuseError(f"{place.url}/{entry.name} is not an elastic island's")


def _values(parts: Sequence[Part]) -> dict[int, Tensor]:
    """By layer, all its vshards one after the other: [n]. Raises CheckpointError."""
    shards: dict[str, Tensor] = {}
    for part in parts:
        assert part.entry.manifest is not None  # `survey` keeps no others
        files = part.entry.manifest.files
        shared = any(file.group == OUTER_SLOTS[0] for file in files)
        group = OUTER_SLOTS[0] if shared else SLOTS[0]
        targets = {
            name: torch.empty(shape)
            for file in files
            if file.group == group
            for name, (_, shape) in file.tensors.items()
        }
        read.load_some(part.place, part.entry, {group: targets})
        shards |= targets
    by_layer: dict[int, list[tuple[int, Tensor]]] = {}
    for name, tensor in shards.items():
        layer, v = shard_of(name)
        by_layer.setdefault(layer, []).append((v, tensor))
    return {
        layer: torch.cat([tensor for _, tensor in sorted(own, key=lambda one: one[0])])
        for layer, own in by_layer.items()
    }


def _fill(layers: Sequence[nn.Module], values: Mapping[int, Tensor], url: str) -> None:
    made = plans(layers)
    mine = {index: flat.size_of(plan.own) for index, plan in enumerate(made)}
    there = {index: len(value) for index, value in values.items()}
    for index in sorted(mine.keys() | there.keys()):
        if mine.get(index, 0) != there.get(index, 0):
            raise MismatchError(
                f"layer {index} has {mine.get(index, 0)} elements here, {there.get(index, 0)} in "
                f"{url}: give the layers that were trained"
            )
    with torch.no_grad():
        for index, (layer, plan) in enumerate(zip(layers, made, strict=True)):
            parameters = dict(layer.named_parameters())
            for place in plan.own:
                value = values[index][place.begin : place.end].view(place.shape)
                parameters[place.name].copy_(value)
