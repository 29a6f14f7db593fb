"""From gradients to COMMIT: REDUCE, agree on the clip factor, PREPARE, confirm. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from atoll.elastic import flat, routes
from atoll.elastic.durable import Durable
from atoll.elastic.exchange import elements, exchange, parts
from atoll.elastic.identity import Worker
from atoll.elastic.layout import Layout
from atoll.elastic.recovery import Agreed
from atoll.elastic.requests import Gather, Program, dump, load
from atoll.elastic.routes import Others, Route
from atoll.elastic.stage_worker import StageWorker
from atoll.elastic.tree import cover
from atoll.errors import MismatchError

if TYPE_CHECKING:
    from torch import Tensor

ATTEMPTS = 3
"""How often gradients that arrive damaged are sent again."""


class Decision:
    """One worker's part, step by step."""

    def __init__(
        self, worker: StageWorker, *, durable: Durable | None, leaving: Callable[[], bool]
    ) -> None:
        """durable: what is written is told with the losses. leaving: whether this worker was told
        to leave."""
        self._worker = worker
        self._spine = worker.spine
        self._durable = durable
        self._leaving = leaving
        self.leavers: frozenset[Worker] = frozenset()
        """Who has said in the step that is under way that it was told to leave."""

    def made(self, layout: Layout, also: Others) -> Program[Agreed]:
        """All passes are made; when it returns the step is decided. also: who needs prepared
        gradients besides backups. Raises MismatchError for gradients that stay damaged."""
        for _ in range(ATTEMPTS):
            yield from self._reduce(layout)
            agreed = yield from self._agree(layout)
            yield from self._prepare(layout, also)
            if (yield from self._confirm(layout, also)):
                return agreed
        raise MismatchError("gradients arrive damaged at their backups, time and again")

    def _exchange(
        self,
        what: str,
        layout: Layout,
        todo: Sequence[Route],
        content: Callable[[Route], list[Tensor]],
        size: Callable[[Route], int],
    ) -> Program[list[tuple[Route, Tensor]]]:
        label = (what, layout.epoch, self._worker.step)
        return (yield from exchange(self._worker.name, label, todo, content, size))

    def _reduce(self, layout: Layout) -> Program[None]:
        self._worker.forget_reduction()
        todo = routes.to_owners(layout, self._spine)
        for shard in self._worker.owned:
            for layer in self._spine.users(shard):
                if layer in self._worker.layers:
                    self._worker.take_nodes(shard, layer, self._worker.nodes(shard, layer))

        def content(route: Route) -> list[Tensor]:
            made = routes.gradients_in(route, layout, self._spine)
            return [value for each in made for _, value in self._worker.nodes(*each)]

        def size(route: Route) -> int:
            made = routes.gradients_in(route, layout, self._spine)
            sizes = (self._spine.elements(*each) for each in made)
            return len(self._cover(layout, route.source)) * sum(sizes)

        for route, tensor in (yield from self._exchange("nodes", layout, todo, content, size)):
            nodes = self._cover(layout, route.source)
            at = 0
            for shard, layer in routes.gradients_in(route, layout, self._spine):
                each = self._spine.elements(shard, layer)
                values = tensor[at : at + len(nodes) * each].view(len(nodes), each)
                self._worker.take_nodes(shard, layer, list(zip(nodes, values, strict=True)))
                at += values.numel()

    def _cover(self, layout: Layout, worker: Worker) -> tuple[tuple[int, int], ...]:
        return cover(layout.micro_batches_of(worker), self._spine.micro_batches)

    def _agree(self, layout: Layout) -> Program[Agreed]:
        own = dump(
            squares=self._worker.squares(),
            losses=list(self._worker.losses.items()),
            written=[] if self._durable is None else self._durable.written(),
            leaves=self._leaving(),
        )
        told = yield Gather(what="agree", text=own)
        said = [load(text) for _, text in sorted(told.items())]
        if self._durable is not None:
            self._durable.heard(load(told[w])["written"] for w in layout.workers)
        self.leavers = frozenset(worker for worker, text in told.items() if load(text)["leaves"])
        norm = flat.gradient_norm(x for each in said for x in each["squares"])
        losses = dict(pair for each in said for pair in each["losses"])
        agreed = Agreed(
            factor=flat.clip_factor(norm, self._worker.task.max_norm),
            loss=flat.total_loss([losses[mb] for mb in range(self._spine.micro_batches)]),
        )
        self._worker.agree(agreed)
        return agreed

    def _prepare(self, layout: Layout, also: Others) -> Program[None]:
        """Clipped gradients to the backups, and to those whom vshards are on their way to."""
        own = {shard: self._worker.prepare(shard) for shard in self._worker.owned}
        arrived = yield from self._exchange(
            "prepared",
            layout,
            routes.to_backups(layout, self._spine, also),
            lambda route: [own[shard] for shard in route.shards],
            partial(elements, spine=self._spine),
        )
        for route, tensor in arrived:
            for shard, gradient in parts(route, tensor, self._spine):
                self._worker.take_prepared(shard, gradient)

    def _confirm(self, layout: Layout, also: Others) -> Program[bool]:
        """COMMIT, if what owners have sent is what the others have got."""
        todo = [r for r in routes.to_backups(layout, self._spine, also) if elements(r, self._spine)]
        own = {
            number: self._worker.prepared_digest(route.shards)
            for number, route in enumerate(todo)
            if self._worker.name in (route.source, route.target)
        }
        told = yield Gather(what="prepared", text=dump(digests=own))
        said = {worker: load(text)["digests"] for worker, text in told.items()}
        return all(
            said[route.source][str(number)] == said[route.target][str(number)]
            for number, route in enumerate(todo)
        )
