"""Live migration: vshards travel to their next places while a step runs. No I/O.

What moves is frozen at the step's beginning and travels beside the passes. The receivers get the
step's prepared gradients as backups do, and make the same update; so at the step's end they have
the state after it, and the layout changes without anybody waiting for state. Until the gate has
compared digests, what has landed is no copy that counts: a loss drops it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from atoll.elastic.exchange import coming, going, state_elements, states, unpacked, waiting
from atoll.elastic.identity import VShard, Worker
from atoll.elastic.layout import Layout
from atoll.elastic.placement import Move
from atoll.elastic.requests import (
    Interrupted,
    Key,
    OutsideChanged,
    Program,
    Receive,
    Request,
    Result,
)
from atoll.elastic.routes import Route, of_moves
from atoll.elastic.stage_worker import Shard, StageWorker

if TYPE_CHECKING:
    from torch import Tensor


class Landing:
    """One step's. layout: the one after it; None, without moves, where the layout stays."""

    def __init__(
        self, worker: StageWorker, layout: Layout | None = None, made: Sequence[Move] = ()
    ) -> None:
        self.layout = layout
        self._worker = worker
        self._step = worker.step
        self._routes = of_moves(made)
        self._landing: dict[Key, tuple[Route, Tensor]] = {}
        self._waiting: set[Key] = set()
        targets: dict[VShard, tuple[Worker, ...]] = {}
        for move in made:
            targets[move.shard] = (*targets.get(move.shard, ()), move.target)
        self.targets: Mapping[VShard, Sequence[Worker]] = targets
        """Who needs the prepared gradients of these vshards besides owners and backups."""

    def beside(self, program: Program[Result]) -> Program[Result]:
        """Runs it; what arrives meanwhile of the moved state is none of its business."""
        if self.layout is not None:
            label = ("state", self.layout.epoch, self._step)
            worker, size = self._worker, partial(state_elements, self._worker)
            self._landing = yield from coming(worker.name, label, self._routes, size)
            self._waiting = waiting(self._landing)
            yield from going(worker.name, label, self._routes, partial(states, worker), size)
        answer: object = None
        thrown: Interrupted | OutsideChanged | None = None
        while True:
            try:
                request = program.send(answer) if thrown is None else program.throw(thrown)
            except StopIteration as end:
                result: Result = end.value
                return result
            answer, thrown = None, None
            try:
                answer = yield from self._asked(request)
            except (Interrupted, OutsideChanged) as change:
                thrown = change

    def _asked(self, request: Request) -> Program[object]:
        answer: object = yield request
        while isinstance(request, Receive) and answer in self._waiting:
            self._waiting.discard(answer)
            answer = yield request
        return answer

    def rest(self) -> Program[dict[VShard, Shard]]:
        """Waits for what is still on its way; returns what was brought here, as it was sent."""
        while self._waiting:
            self._waiting.discard((yield Receive()))
        return unpacked(self._worker, list(self._landing.values()))
