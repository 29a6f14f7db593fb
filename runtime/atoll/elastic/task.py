"""What an elastic island trains, and how one layer is computed: the same for every layout."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from atoll.elastic import flat
from atoll.elastic.adamw import AdamW
from atoll.elastic.identity import Spine, Tie
from atoll.elastic.keyed import work
from atoll.elastic.outer import DiLoCo
from atoll.elastic.ties import Plan, plans
from atoll.errors import MisuseError

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch = Callable[[int, int], tuple["Tensor", "Tensor"]]
"""(step, micro-batch) -> (inputs, targets): a pure function, of one shape for all micro-batches."""

Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""(output of the last layer, targets) -> the SUM of the losses of all tokens, a scalar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A model as a list of layers, its data, and its optimizer.

    layers: takes one tensor each and returns one, the first the inputs. Nothing may depend on other
    samples' statistics (no BatchNorm in training). A parameter of several layers is trained as one.
    tokens: of a whole step, the constant that the
    summed loss is divided by. learning_rate: by step from 0; None: the optimizer's own.
    outer: what this island does with others after a number of steps.
    """

    seed: int
    micro_batches: int
    vshards: int
    layers: Sequence[nn.Module]
    batch: Batch
    loss: Loss
    tokens: int
    optimizer: AdamW = field(default_factory=AdamW)
    max_norm: float | None = 1.0
    learning_rate: Callable[[int], float] | None = None
    outer: DiLoCo | None = None

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise MisuseError(f"a step of {self.tokens} tokens has no loss")
        if self.micro_batches > 0 and self.tokens % self.micro_batches:
            raise MisuseError(
                f"a step of {self.tokens} tokens does not divide into {self.micro_batches} "
                "micro-batches of one shape: change one of the two numbers"
            )
        for index, layer in enumerate(self.layers):
            if any(
                isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in layer.modules()
            ):
                raise MisuseError(
                    f"layer {index} has a BatchNorm, whose statistics depend on what is computed "
                    "where: use LayerNorm, RMSNorm or GroupNorm"
                )

    def spine(self) -> Spine:
        found = plans(self.layers)
        return Spine(
            seed=self.seed,
            micro_batches=self.micro_batches,
            layer_sizes=tuple(flat.size_of(plan.own) for plan in found),
            vshards=self.vshards,
            ties=tuple(tie for plan in found for tie in plan.ties),
        )

    def layer(self, index: int) -> Layer:
        """A copy of this layer, with the parameters that it begins with."""
        return Layer(index, copy.deepcopy(self.layers[index]), plans(self.layers)[index])

    def borders(self) -> list[Tensor]:
        """For each layer what its input looks like, and the last one's output: shape and dtype.

        Computes the forward pass of one micro-batch.
        """
        x, _ = self.batch(0, 0)
        found = [x.detach()]
        with torch.no_grad():
            for index, layer in enumerate(self.layers):
                with work(self.seed, 0, 0, index):
                    x = layer(x)
                found.append(x.contiguous())
        return [torch.empty_like(each) for each in found]

    def settings(self, step: int) -> AdamW:
        """The optimizer's settings in this step, which counts from 0."""
        if self.learning_rate is None:
            return self.optimizer
        return replace(self.optimizer, lr=self.learning_rate(step))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """One layer's forward pass of one micro-batch, kept for its backward pass."""

    x: Tensor
    y: Tensor


class Layer:
    """A layer that somebody holds: its module, computing with its flat parameters."""

    def __init__(self, index: int, module: nn.Module, plan: Plan) -> None:
        self.index = index
        self.module = module
        self.parameters = flat.bind(module, plan.own)
        """[n] float32. What is written here is what the module computes with."""
        self.ties = plan.ties
        self.tied: dict[Tie, Tensor] = {}
        """Parameters that have their place in other layers, each flat."""
        self.places = (*plan.own, *plan.tied)
        """Of its gradients."""
        named = dict(module.named_parameters())
        self._trained = [named[place.name] for place in self.places]
        for tie, place in zip(plan.ties, plan.tied, strict=True):
            self._compute_with(tie, named[place.name].detach().flatten().clone())

    def _compute_with(self, tie: Tie, values: Tensor) -> None:
        self.tied[tie] = values
        number = len(self.places) - len(self.ties) + self.ties.index(tie)
        self._trained[number].data = values.view(self.places[number].shape)

    def share(self, layers: Mapping[int, Layer]) -> None:
        """Tied parameters lie where their homes are, when these are among `layers`: their memory is
        there once."""
        for tie in self.ties:
            if tie.home in layers:
                self._compute_with(tie, layers[tie.home].parameters[tie.begin : tie.end])

    def forward(self, seed: int, step: int, micro_batch: int, x: Tensor) -> Tape:
        """Cut from the layer before: a stage may end anywhere without a change of one bit."""
        x = x.detach().contiguous()
        if x.is_floating_point():
            x.requires_grad_()
        with torch.enable_grad(), work(seed, step, micro_batch, self.index):
            y: Tensor = self.module(x)
        return Tape(x=x, y=y)

    def backward(self, tape: Tape, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        """(gradient of the input, or None for integers; gradient of the parameters: [n], and what
        belongs to other layers behind it)."""
        inputs = [*([tape.x] if tape.x.requires_grad else []), *self._trained]
        if not inputs:
            return None, torch.zeros(0)
        found = torch.autograd.grad(
            tape.y, inputs, gradient.detach().contiguous(), allow_unused=True
        )
        if not tape.x.requires_grad:
            return None, flat.flatten(self.places, found)
        below = found[0] if found[0] is not None else torch.zeros_like(tape.x)
        return below.contiguous(), flat.flatten(self.places, found[1:])


def loss_and_gradient(task: Task, output: Tensor, targets: Tensor) -> tuple[float, Tensor]:
    """A micro-batch's part of the step's loss, and its gradient for the last layer's output."""
    cut = output.detach().contiguous().requires_grad_()
    with torch.enable_grad():
        loss = task.loss(cut, targets) / task.tokens
    (gradient,) = torch.autograd.grad(loss, [cut])
    return float(loss.detach()), gradient.contiguous()
