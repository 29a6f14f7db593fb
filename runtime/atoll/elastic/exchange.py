"""Tensors between workers that know the same list of routes. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from atoll.elastic.identity import Spine, VShard, Worker
from atoll.elastic.requests import Expect, Key, Program, Receive, Send
from atoll.elastic.routes import Route
from atoll.elastic.stage_worker import Shard, StageWorker

if TYPE_CHECKING:
    from torch import Tensor


def elements(route: Route, spine: Spine) -> int:
    """Of the parameters that a route is about."""
    return sum(end - begin for begin, end in map(spine.bounds, route.shards))


def parts(route: Route, tensor: Tensor, spine: Spine) -> list[tuple[VShard, Tensor]]:
    """The vshards' pieces of what came by a route."""
    sizes = [end - begin for begin, end in map(spine.bounds, route.shards)]
    return list(zip(route.shards, torch.split(tensor, sizes), strict=True))


def key_of(label: Key, route: Route) -> Key:
    return (*label, route.source, route.target)


Coming = dict[Key, tuple[Route, "Tensor"]]


def coming(
    own: Worker, label: Key, todo: Sequence[Route], size: Callable[[Route], int]
) -> Program[Coming]:
    """Expects all that `own` gets; what is empty is not waited for."""
    found: Coming = {}
    for route in todo:
        if route.target == own:
            key, target = key_of(label, route), torch.empty(size(route))
            found[key] = (route, target)
            if target.numel():
                yield Expect(source=route.source, key=key, target=target)
    return found


def waiting(found: Coming) -> set[Key]:
    return {key for key, (_, target) in found.items() if target.numel()}


def going(
    own: Worker,
    label: Key,
    todo: Sequence[Route],
    content: Callable[[Route], list[Tensor]],
    size: Callable[[Route], int],
) -> Program[None]:
    """Sends what `own` has to send. What is empty is not sent."""
    for route in todo:
        if route.source == own and size(route):
            tensor = torch.cat(content(route))
            yield Send(target=route.target, key=key_of(label, route), tensor=tensor)


def exchange(
    own: Worker,
    label: Key,
    todo: Sequence[Route],
    content: Callable[[Route], list[Tensor]],
    size: Callable[[Route], int],
) -> Program[list[tuple[Route, Tensor]]]:
    """Sends what `own` has to send, and returns what it gets, in the order of routes.

    label: names the exchange; equal on both sides, like `size`, the elements of a route's tensor.
    """
    found = yield from coming(own, label, todo, size)
    yield from going(own, label, todo, content, size)
    left = waiting(found)
    while left:
        left.discard((yield Receive()))
    return list(found.values())


# ---- vshards' states -----------------------------------------------------------------------------


def state_elements(worker: StageWorker, route: Route) -> int:
    """Of all slots of a route's vshards."""
    return len(worker.slots) * elements(route, worker.spine)


def states(worker: StageWorker, route: Route) -> list[Tensor]:
    """What a worker sends of vshards that it holds: all their slots, one after the other."""
    held = [worker.owned.get(shard) or worker.shadows[shard] for shard in route.shards]
    return [tensor for state in held for tensor in state.slots().values()]


def unpacked(worker: StageWorker, arrived: Sequence[tuple[Route, Tensor]]) -> dict[VShard, Shard]:
    """What `states` made, at the step that the worker is at."""
    found = {}
    for route, tensor in arrived:
        sizes = [end - begin for begin, end in map(worker.spine.bounds, route.shards)]
        slots = iter(torch.split(tensor, [size for size in sizes for _ in worker.slots]))
        for shard in route.shards:
            state = {name: next(slots).clone() for name in worker.slots}
            found[shard] = Shard(**state, version=worker.step)
    return found
