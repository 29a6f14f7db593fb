"""One worker's passes through the layers of one of its stages, in one step. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from atoll.elastic.recovery import Computed
from atoll.elastic.task import Layer, Tape, Task, loss_and_gradient
from atoll.elastic.tree import Merger
from atoll.errors import MisuseError

if TYPE_CHECKING:
    from torch import Tensor


class Passes:
    """What a method returns stays the worker's: who keeps it copies it."""

    def __init__(
        self,
        task: Task,
        layers: Sequence[Layer],
        sums: Mapping[int, Merger[Tensor]],
        *,
        step: int,
        border: Callable[[int], Tensor],
    ) -> None:
        """layers: of the stage, in order. sums: by layer, where parameters' gradients go. border: a
        tensor like a layer's input."""
        self._task, self._layers, self._sums = task, layers, sums
        self._step, self._border = step, border
        self._first, self._last = layers[0].index, layers[-1].index + 1
        self.is_first = self._first == 0
        self.is_last = self._last == len(task.layers)
        self.losses: dict[int, float] = {}
        self.outputs: dict[int, Tensor] = {}
        self.gradients: dict[int, Tensor] = {}
        self._tapes: dict[int, list[Tape]] = {}
        self._loss_gradients: dict[int, Tensor] = {}

    @property
    def tapes(self) -> frozenset[int]:
        """Micro-batches whose forward pass it can go back through."""
        return frozenset(self._tapes)

    def input_like(self) -> Tensor:
        """A tensor like the stage's input. All micro-batches have one shape."""
        return self._border(self._first)

    def output_like(self) -> Tensor:
        """A tensor like the stage's output."""
        return self._border(self._last)

    def computed(self) -> Computed:
        return Computed(
            first=self._first,
            last=self._last,
            nodes=frozenset(self._sums[self._first].nodes()),
            outputs=frozenset(self.outputs),
            gradients=frozenset(self.gradients),
            tapes=self.tapes,
        )

    def forward(self, micro_batch: int, x: Tensor | None) -> Tensor | None:
        """The stage's output, for the next stage. x: its input; None for the first stage.

        The last stage returns None, and keeps the loss and its gradient for `backward`.
        """
        inputs, targets = self._task.batch(self._step, micro_batch)
        value = inputs if self.is_first else x
        if value is None:
            raise MisuseError(f"micro-batch {micro_batch} has no input for layer {self._first}")
        tapes = []
        for layer in self._layers:
            tape = layer.forward(self._task.seed, self._step, micro_batch, value)
            tapes.append(tape)
            value = tape.y
        self._tapes[micro_batch] = tapes
        if self.is_last:
            loss, gradient = loss_and_gradient(self._task, value, targets)
            self.losses[micro_batch] = loss
            self._loss_gradients[micro_batch] = gradient
            return None
        self.outputs[micro_batch] = value.detach().contiguous()
        return self.outputs[micro_batch]

    def backward(self, micro_batch: int, gradient: Tensor | None, *, leaf: bool) -> Tensor | None:
        """The gradient of the stage's input, for the stage before; None for the first stage.

        gradient: of the stage's output; None for the last stage. leaf: the parameters' gradients
        enter the tree; not so when only the stage before lacks its gradient.
        """
        if micro_batch not in self._tapes:
            raise MisuseError(
                f"micro-batch {micro_batch} has no forward pass from layer {self._first}"
            )
        above = self._loss_gradients.pop(micro_batch) if self.is_last else gradient
        if above is None:
            raise MisuseError(f"micro-batch {micro_batch} has no gradient for layer {self._last}")
        tapes = self._tapes.pop(micro_batch)
        below: Tensor | None = above
        for layer, tape in zip(reversed(self._layers), reversed(tapes), strict=True):
            if below is None:
                raise MisuseError(f"layer {layer.index} is above one whose input has no gradient")
            below, own = layer.backward(tape, below)
            if leaf:
                self._sums[layer.index].put((0, micro_batch), own)
        if self.is_first or below is None:
            return None
        self.gradients[micro_batch] = below
        return below
