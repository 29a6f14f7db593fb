"""The run that every elastic run must equal, bit for bit: one process, no stages, no failures.

Written for its plainness, and on other ways than the island's: the model is one graph from inputs
to loss, the tree of gradients a recursion, updates are made of whole layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from atoll.elastic import adamw, flat
from atoll.elastic.keyed import work
from atoll.elastic.task import Task

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True, kw_only=True)
class Moments:
    """Of one layer, [n] each."""

    m: Tensor
    v: Tensor


class Oracle:
    """Trains a task step by step."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._spine = task.spine()
        self.layers = [task.layer(index) for index in range(len(task.layers))]
        for layer in self.layers:
            layer.share(dict(enumerate(self.layers)))
        self.moments = [
            Moments(m=torch.zeros_like(layer.parameters), v=torch.zeros_like(layer.parameters))
            for layer in self.layers
        ]
        self.step = 0

    def train_step(self) -> float:
        """One step; returns its loss."""
        leaves = [self._micro_batch(mb) for mb in range(self._task.micro_batches)]
        gradients = [self._tree([leaf[1][layer.index] for leaf in leaves]) for layer in self.layers]
        for tie in self._spine.ties:
            end = tie.at + tie.end - tie.begin
            gradients[tie.home][tie.begin : tie.end] += gradients[tie.layer][tie.at : end]
        blocks = []
        for shard in self._spine.shards():
            begin, end = self._spine.bounds(shard)
            blocks += flat.squares(gradients[shard[0]][begin:end])
        factor = flat.clip_factor(flat.gradient_norm(blocks), self._task.max_norm)
        settings = self._task.settings(self.step)
        self.step += 1
        for layer, moments, gradient in zip(self.layers, self.moments, gradients, strict=True):
            adamw.apply(
                settings,
                layer.parameters,
                moments.m,
                moments.v,
                gradient[: len(layer.parameters)] * factor,
                step=self.step,
            )
        return flat.total_loss([loss for loss, _ in leaves])

    def _micro_batch(self, micro_batch: int) -> tuple[float, list[Tensor]]:
        """(loss, gradient of each layer) from one graph."""
        x, targets = self._task.batch(self.step, micro_batch)
        for layer in self.layers:
            with work(self._task.seed, self.step, micro_batch, layer.index):
                x = Boundary.apply(layer.module(x))  # type: ignore[no-untyped-call]
        loss = self._task.loss(x, targets) / self._task.tokens
        trained = [
            [dict(layer.module.named_parameters())[place.name] for place in layer.places]
            for layer in self.layers
        ]
        found = iter(
            torch.autograd.grad(loss, [p for own in trained for p in own], allow_unused=True)
        )
        gradients = [
            flat.flatten(layer.places, [next(found) for _ in layer.places]) for layer in self.layers
        ]
        return float(loss.detach()), gradients

    def _tree(self, leaves: list[Tensor]) -> Tensor:
        """The left half is the largest power of two below the number of leaves."""
        if len(leaves) == 1:
            return leaves[0]
        half = 1 << (len(leaves) - 1).bit_length() - 1
        return self._tree(leaves[:half]) + self._tree(leaves[half:])


class Boundary(torch.autograd.Function):
    """Between layers values and gradients are contiguous, as if they had been sent."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous().view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        made: Tensor = gradients[0].contiguous()
        return made
