"""Outer rounds between islands on a simulated network: any loss at any moment, a plain loop's bits.

The members' real programs on one seed's network; `ELASTIC_SEEDS=500` for more histories.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from outer_worker import EVERY, ISLANDS, LR, MOMENTUM, STEPS, task_of
from simulated import Simulation, World
from test_outer_processes import Right
from torch import Tensor

from atoll.checkpoint.write import Origin
from atoll.elastic.durable import Durable
from atoll.elastic.layout import Layout
from atoll.elastic.member import Member
from atoll.elastic.outer import DiLoCo
from atoll.elastic.requests import Gather, Key, Outside, Receive
from atoll.elastic.stage_worker import StageWorker
from atoll.elastic.task import Task
from atoll.errors import CheckpointError, MismatchError

pytestmark = [pytest.mark.training, pytest.mark.simulation]

SEEDS = int(os.environ.get("ELASTIC_SEEDS", "6"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def right() -> Right:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Right()
    torch.set_num_threads(before)
    return found


def never() -> Any:
    raise AssertionError("the network is simulated")


def told(island: str, **changes: Any) -> Task:
    outer = DiLoCo(
        join=never, island=island, islands=ISLANDS, every=EVERY, lr=LR, momentum=MOMENTUM
    )
    return replace(task_of(island), outer=replace(outer, **changes))


class Prompt(Durable):
    """Written before anything else happens, so that a seed has one history."""

    def step_over(self, worker: StageWorker, layout: Layout, *, last: bool = False) -> None:
        super().step_over(worker, layout, last=last)
        self.wait()


def durable(folder: Path, task: Task, *, every: int = 1) -> Prompt:
    origin = Origin(job="reef", island="sim", software="0")
    return Prompt(str(folder), origin, every=every, keep=1, outer=task.outer)


class Story:
    """Islands of workers, and what becomes of them."""

    def __init__(
        self,
        seed: int,
        workers: Mapping[str, int],
        *,
        pipeline: int = 2,
        folder: Path | None = None,
        tasks: Mapping[str, Task] | None = None,
        letter: str = "w",
    ) -> None:
        self.world = World(seed)
        self.rng = random.Random(seed)
        self._pipeline, self._folder, self._letter = pipeline, folder, letter
        self._born = 0
        self._tasks = tasks or {island: told(island) for island in workers}
        for island, count in workers.items():
            members = [self.member(island) for _ in range(count)]
            simulation = self.world.add(island, members, steps=STEPS)
            if folder is not None:
                simulation.after_step = self.write
                simulation.at_end = lambda member: self.write(member, last=True)

    def member(self, island: str) -> Member:
        self._born += 1
        task = self._tasks[island]
        return Member(
            f"{island[0]}{self._letter}{self._born}",
            task,
            pipeline=self._pipeline,
            arithmetic="same",
            durable=durable(self._folder / island, task) if self._folder else None,
        )

    def write(self, member: Member, last: bool = False) -> None:
        assert member._durable is not None
        assert member.layout is not None
        member._durable.step_over(member.worker, member.layout, last=last)

    def protected(self, island: Simulation) -> bool:
        """Whether any one of its workers may be lost now."""
        alive = set(island.seats)
        layouts = [seat.member.layout for seat in island.seats.values()]
        return alive == set(island.members) and all(
            layout is not None
            and set(layout.workers) <= alive
            and all(backup for row in layout.backups for backup in row)
            for layout in layouts
        )

    def in_a_round(self) -> bool:
        return any(
            seat.member.worker.rounds * EVERY < seat.member.step // EVERY * EVERY
            for island in self.world.islands.values()
            for seat in island.seats.values()
        )


def check(world: World, right: Right, *, begun: int = 0) -> None:
    """Losses of all steps at all members, and all copies of all state at the end."""
    for name, island in world.islands.items():
        assert set(island.losses) == set(range(min(island.losses), STEPS + 1))
        assert min(island.losses) > begun
        for step, losses in island.losses.items():
            assert set(losses.values()) == {right.losses[name][step - 1]}
        for member in island.ended:
            worker = member.worker
            assert (worker.step, worker.rounds) == (STEPS, STEPS // EVERY)
            for (layer, v), state in (*worker.owned.items(), *worker.shadows.items()):
                assert state.copy().slots == right.slots(name, layer, v)
            for index, held in worker.layers.items():
                assert torch.equal(held.parameters, right._oracles[name].layers[index].parameters)


def test_without_failures(right: Right) -> None:
    story = Story(1, {"east": 3, "west": 2})
    story.world.run()
    check(story.world, right)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_losses_and_joins_at_any_moment(right: Right, seed: int) -> None:
    """Half of them while a round is under way, some in both islands at once."""
    rng = random.Random(seed)
    counts = {island: rng.randint(3, 4) for island in ISLANDS}
    story = Story(seed, counts, pipeline=rng.randint(1, 2))
    world = story.world
    events = sorted(rng.sample(range(20, 1000), 5))
    in_round = [rng.random() < 0.6 for _ in events]

    def between(turn: int) -> None:
        if not events or turn < events[0]:
            return
        if in_round[0] and not story.in_a_round():
            return
        able = [name for name, island in world.islands.items() if story.protected(island)]
        if any(island.ended for island in world.islands.values()):
            return
        chosen = able if rng.random() < 0.3 else rng.sample(able, min(1, len(able)))
        if not chosen:
            return
        events.pop(0)
        in_round.pop(0)
        for name in chosen:
            island = world.islands[name]
            if rng.random() < 0.4:
                island.join(story.member(name))
            elif len(island.members) > 2:
                world.kill(name, rng.choice(sorted(island.seats)))

    world.run(between)
    check(world, right)


def missed(island: Simulation) -> list[str]:
    """Workers whose tensors another waits for, while a third one of the island has its sums."""
    outer = {f"{name}'": seat for name, seat in island.seats.items()}
    waits = {name: s.waits.request for name, s in outer.items() if isinstance(s.waits, Outside)}
    have = {name for name, what in waits.items() if what == Gather(what="sums agreed", text=ANY)}
    missing = {
        source
        for name, what in waits.items()
        if isinstance(what, Receive) and (port := outer[name].outer) is not None
        for source, key in port.expected
        if not port.view.sent.get((source, key, name))
    }
    return sorted(missing & set(outer) - have) if have else []


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_loss_while_some_have_their_sums_and_some_do_not(right: Right, seed: int) -> None:
    """They wait for one another in both views: in the island to mend it, outside for the sums. One
    story in fifty has no such moment: then the next one."""
    dead: list[str] = []
    for again in itertools.count():
        story = Story(seed + 1000 * again, {"east": 4, "west": 3})
        story.world.run(partial(kill_one_that_is_missed, story, dead))
        check(story.world, right)
        if dead:
            return
        assert again < 4


def kill_one_that_is_missed(story: Story, dead: list[str], turn: int) -> None:
    east = story.world.islands["east"]
    chosen = [] if dead else missed(east)
    if chosen and story.protected(east):
        dead.append(story.rng.choice(chosen).rstrip("'"))
        story.world.kill("east", dead[0])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_islands_that_are_killed_as_a_whole_go_on_together(
    right: Right, seed: int, tmp_path: Path
) -> None:
    """Both at any moment, the second a little later; others begin at a round that both have."""
    rng = random.Random(seed)
    first = Story(seed, {island: rng.randint(2, 3) for island in ISLANDS}, folder=tmp_path)
    order = rng.sample(ISLANDS, 2)
    ends = rng.randint(20, 1300)
    turns = [ends, ends + rng.randint(0, 200)]

    class Over(Exception):
        pass

    def between(turn: int) -> None:
        for island, at in zip(order, turns, strict=True):
            if turn == at:
                first.world.islands[island].kill(*first.world.islands[island].members)
                outer = first.world.outer
                outer.install(tuple(n for n in outer.members if not n.startswith(island[0])))
        if not any(island.seats for island in first.world.islands.values()):
            raise Over

    with suppress(Over):
        first.world.run(between)
    second = Story(
        seed + 1,
        {island: rng.randint(2, 4) for island in ISLANDS},
        folder=tmp_path,
        letter="x",
    )
    second.world.run()
    begun = {min(island.losses, default=STEPS + 1) for island in second.world.islands.values()}
    rounds = {(step - 1) // EVERY for step in begun}
    assert len(rounds) == 1, f"they begin at steps {begun}"
    if begun != {STEPS + 1}:
        check(second.world, right)


def test_islands_without_a_common_round_are_told(right: Right, tmp_path: Path) -> None:
    first = Story(1, {"east": 2, "west": 2}, folder=tmp_path)
    first.world.run()
    (tmp_path / "west").rename(tmp_path / "lost")
    second = Story(2, {"east": 2, "west": 2}, folder=tmp_path, letter="x")
    with pytest.raises(CheckpointError, match="no round at which all islands can begin: east"):
        second.world.run()
    other = {island: told(island, lr=0.5) for island in ISLANDS}
    (tmp_path / "lost").rename(tmp_path / "west")
    with pytest.raises(MismatchError, match="another outer method"):
        Story(3, {"east": 2, "west": 2}, folder=tmp_path, tasks=other).world.run()


@pytest.mark.parametrize("what", ["sums", "shadow sums"])
def test_what_is_damaged_once_between_islands_is_sent_again(right: Right, what: str) -> None:
    story = Story(4, {"east": 3, "west": 3})
    damaged = []

    def spoil(key: Key, tensor: Tensor) -> None:
        if key[0] == what and not damaged:
            damaged.append(key)
            tensor.view(torch.int32)[3] ^= 1 << 12

    for island in story.world.islands.values():
        island.spoil = spoil
    story.world.run()
    assert damaged
    check(story.world, right)
