"""COMPUTE: a worker's passes over its micro-batches, as inputs and gradients arrive. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from atoll.elastic.layout import Layout
from atoll.elastic.recovery import Redo
from atoll.elastic.requests import Expect, Key, Program, Receive, Send
from atoll.elastic.routes import part
from atoll.elastic.schedule import Schedule, Stretch, next_pass, order
from atoll.elastic.stage_worker import StageWorker

if TYPE_CHECKING:
    from torch import Tensor


def compute(
    worker: StageWorker, layout: Layout, todo: Sequence[Redo], schedule: Schedule
) -> Program[None]:
    """What this worker has to do of `todo`, and what its neighbours need from it."""
    indices = layout.stages_of(worker.name)
    own = {index: Work(worker, layout, todo, index) for index in indices}
    shares = [stage.micro_batches for stage in layout.stages[: len(layout.groups)]]
    in_order = order(shares, indices[0], layout.chunks)
    for work in own.values():
        yield from work.expected()
    for work in own.values():
        yield from work.kept()
    while any(work.forwards or work.backwards for work in own.values()):
        made = next_pass(schedule, [work.stretch() for work in own.values()], in_order)
        if made is None:
            worker.settle()
            kind, _, _, index, micro_batch = yield Receive()
            own[int(index)].arrived[str(kind)].add(int(micro_batch))
            continue
        what, place, micro_batch = made
        yield from own[indices[place]].made(what, micro_batch)
    worker.settle()


class Work:
    """In one stage."""

    def __init__(
        self, worker: StageWorker, layout: Layout, todo: Sequence[Redo], index: int
    ) -> None:
        self._label: Key = (layout.epoch, worker.step)
        self._index = index
        self._part = part(layout, todo, index, worker.name)
        self._passes = worker.passes(layout.stages[index])
        self.forwards, self.backwards = set(self._part.forward), set(self._part.backward)
        self.arrived: dict[str, set[int]] = {"input": set(), "gradient": set()}
        self._here: dict[tuple[str, int], Tensor] = {}

    def expected(self) -> Iterator[Expect]:
        for kind, sources, shape in (
            ("input", self._part.inputs, self._passes.input_like),
            ("gradient", self._part.gradients, self._passes.output_like),
        ):
            for micro_batch, source in sources.items():
                target = torch.empty_like(shape())
                self._here[kind, micro_batch] = target
                key = (kind, *self._label, self._index, micro_batch)
                yield Expect(source=source, key=key, target=target)

    def kept(self) -> Iterator[Send]:
        """What was computed before, and is needed again."""
        for micro_batch in self._part.outputs_to.keys() - self.forwards:
            yield self._output(micro_batch)
        for micro_batch in self._part.gradients_to.keys() - self.backwards:
            yield self._gradient(micro_batch)

    def stretch(self) -> Stretch:
        passes = self._passes
        return Stretch(
            forwards=self.forwards,
            backwards=self.backwards,
            inputs=self.forwards if passes.is_first else self.arrived["input"],
            gradients=self.backwards if passes.is_last else self.arrived["gradient"],
            tapes=passes.tapes,
        )

    def made(self, what: str, micro_batch: int) -> Iterator[Send]:
        """Makes a pass."""
        if what == "forward":
            self._passes.forward(micro_batch, self._here.pop(("input", micro_batch), None))
            self.forwards.discard(micro_batch)
            if micro_batch in self._part.outputs_to:
                yield self._output(micro_batch)
        else:
            above = self._here.pop(("gradient", micro_batch), None)
            self._passes.backward(micro_batch, above, leaf=micro_batch in self._part.leaf)
            self.backwards.discard(micro_batch)
            if micro_batch in self._part.gradients_to:
                yield self._gradient(micro_batch)

    def _output(self, micro_batch: int) -> Send:
        return Send(
            target=self._part.outputs_to[micro_batch],
            key=("input", *self._label, self._index + 1, micro_batch),
            tensor=self._passes.outputs[micro_batch],
        )

    def _gradient(self, micro_batch: int) -> Send:
        return Send(
            target=self._part.gradients_to[micro_batch],
            key=("gradient", *self._label, self._index - 1, micro_batch),
            tensor=self._passes.gradients[micro_batch],
        )
