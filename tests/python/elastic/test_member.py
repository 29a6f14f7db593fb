"""The members' programs on a simulated network: any loss at any moment, the oracle's bits."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from models import task
from simulated import Simulation
from torch import Tensor

from atoll.elastic.member import Member
from atoll.elastic.oracle import Oracle
from atoll.elastic.requests import Key
from atoll.elastic.task import Task
from atoll.errors import GateClosed, MismatchError, MisuseError, StateUnavailable

pytestmark = [pytest.mark.training, pytest.mark.simulation]

STEPS = 4

Right = tuple[Oracle, list[float]]
"""And its losses."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained() -> Task:
    return task(blocks=2, micro_batches=4, vshards=6)


@pytest.fixture(scope="module")
def right(trained: Task) -> Right:
    """The run without failures."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    oracle = Oracle(trained)
    losses = [oracle.train_step() for _ in range(STEPS)]
    torch.set_num_threads(before)
    return oracle, losses


def members(
    trained: Task, count: int, pipeline: int, schedule: str = "1f1b", chunks: int = 1
) -> list[Member]:
    return [
        Member(
            f"w{i}",
            trained,
            pipeline=pipeline,
            chunks=chunks,
            arithmetic="same",
            schedule=schedule,
        )
        for i in range(count)
    ]


def check(simulation: Simulation, right: Right, trained: Task) -> None:
    """Losses of all steps at all members, and all copies of all state at the end."""
    oracle, right_losses = right
    assert set(simulation.losses) == set(range(1, STEPS + 1))
    for step, losses in simulation.losses.items():
        assert set(losses.values()) == {right_losses[step - 1]}
    spine = trained.spine()
    for member in simulation.ended:
        worker = member.worker
        assert worker.step == STEPS
        for shard, state in (*worker.owned.items(), *worker.shadows.items()):
            begin, end = spine.bounds(shard)
            assert torch.equal(state.p, oracle.layers[shard[0]].parameters[begin:end])
            assert torch.equal(state.m, oracle.moments[shard[0]].m[begin:end])
            assert torch.equal(state.v, oracle.moments[shard[0]].v[begin:end])
        for index, layer in worker.layers.items():
            assert torch.equal(layer.parameters, oracle.layers[index].parameters)


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_without_failures(trained: Task, right: Right, schedule: str, chunks: int) -> None:
    simulation = Simulation(members(trained, 4, 2, schedule, chunks), seed=1, steps=STEPS)
    simulation.run()
    check(simulation, right, trained)


@pytest.mark.parametrize("seed", range(int(os.environ.get("ELASTIC_SEEDS", "12"))))
def test_losses_and_joins_at_any_moment(trained: Task, right: Right, seed: int) -> None:
    rng = random.Random(seed)
    count, pipeline = rng.randint(3, 6), rng.randint(1, 2)
    chunks = rng.randint(1, 2) if pipeline == 2 else 1
    first = members(trained, count, pipeline, chunks=chunks)
    simulation = Simulation(first, seed=seed, steps=STEPS)
    events = sorted(rng.sample(range(30, 1200), 3))
    born = count

    def between(turn: int) -> None:
        nonlocal born
        if not events or turn < events[0] or simulation.over:
            return
        layouts = {seat.member.layout for seat in simulation.seats.values()}
        protected = all(
            layout is not None
            and set(layout.workers) <= set(simulation.members)
            and all(backup for row in layout.backups for backup in row)
            for layout in layouts
        )
        if not protected:
            return  # another loss now may be beyond what copies can bear: the next test
        events.pop(0)
        if rng.random() < 0.3:
            born += 1
            simulation.join(
                Member(f"w{born}", trained, pipeline=pipeline, chunks=chunks, arithmetic="same")
            )
        elif len(simulation.members) > 2:
            simulation.kill(rng.choice(simulation.members))

    simulation.run(between)
    check(simulation, right, trained)


def test_a_loss_beyond_the_copies_is_refused_by_all(trained: Task) -> None:
    simulation = Simulation(members(trained, 4, 1), seed=3, steps=STEPS)

    def between(turn: int) -> None:
        layout = simulation.seats["w0"].member.layout if "w0" in simulation.seats else None
        if turn > 150 and layout is not None and len(simulation.members) == 4:
            simulation.kill(layout.owner((0, 0)), str(layout.backup((0, 0))))

    with pytest.raises(StateUnavailable, match="checkpoint"):
        simulation.run(between)


def test_another_arithmetic_or_task_is_refused(trained: Task) -> None:
    group = members(trained, 3, 1)
    group[2] = Member("w2", trained, pipeline=1, arithmetic="other")
    with pytest.raises(MismatchError, match="other numbers"):
        Simulation(group, seed=0, steps=1).run()
    group[2] = Member("w2", replace(trained, seed=8), pipeline=1, arithmetic="same")
    with pytest.raises(MismatchError, match="another task"):
        Simulation(group, seed=0, steps=1).run()


@pytest.mark.parametrize("what", ["prepared", "state"])
def test_what_is_damaged_once_is_sent_again(trained: Task, right: Right, what: str) -> None:
    simulation = Simulation(members(trained, 4, 1), seed=5, steps=STEPS)
    damaged = []

    def spoil(key: Key, tensor: Tensor) -> None:
        if key[0] == what and not damaged:
            damaged.append(key)
            tensor.view(torch.int32)[7] ^= 1 << 12

    def between(turn: int) -> None:
        if turn == 300:
            simulation.kill("w3")  # vshards are protected anew: there is state to be sent

    simulation.spoil = spoil
    simulation.run(between)
    assert damaged
    check(simulation, right, trained)


def test_state_moves_while_a_step_runs(trained: Task, right: Right) -> None:
    simulation = Simulation(members(trained, 4, 2), seed=4, steps=STEPS)
    stalls: list[dict[str, tuple[int, bool]]] = []

    def between(turn: int) -> None:
        if turn == 120:
            simulation.join(Member("w4", trained, pipeline=2, arithmetic="same"))
            simulation.late = "state"

    def stalled() -> None:
        workers = [seat.member.worker for seat in simulation.seats.values()]
        stalls.append({w.name: (w.step, w.agreed is not None) for w in workers})

    simulation.stalled = stalled
    simulation.run(between)
    (stall,) = stalls
    # Nobody has waited for state but those who get it, and these with all else of the step done.
    assert stall["w4"] == (2, True)
    assert set(stall.values()) == {(2, True), (3, False)}
    for member in simulation.ended:
        assert member.layout is not None
        assert "w4" in member.layout.workers
    check(simulation, right, trained)


def test_a_newcomer_whose_first_step_is_the_last_ends_with_the_others(
    trained: Task, right: Right
) -> None:
    """Its state is on its way when the others have made the step, and one of them is lost."""
    simulation = Simulation(members(trained, 4, 2), seed=4, steps=3)

    def between(turn: int) -> None:
        if turn == 120:
            simulation.join(Member("w4", trained, pipeline=2, arithmetic="same"))
            simulation.late = "state"

    def stalled() -> None:
        steps = {seat.member.name: seat.member.step for seat in simulation.seats.values()}
        assert steps["w4"] == 2
        assert set(steps.values()) == {2, 3}
        simulation.kill("w0")

    simulation.stalled = stalled
    simulation.run(between)
    assert {member.step for member in simulation.ended} == {3}
    assert set(simulation.losses[3]) >= {"w1", "w2", "w3", "w4"}
    assert set(simulation.losses[3].values()) == {right[1][2]}


def test_who_comes_when_the_run_is_over_is_alone(trained: Task) -> None:
    simulation = Simulation(members(trained, 4, 2), seed=4, steps=1)

    def between(turn: int) -> None:
        if simulation.over and not simulation.ended and "w4" not in simulation.members:
            simulation.join(Member("w4", trained, pipeline=2, arithmetic="same"))

    with pytest.raises(MisuseError, match="1 workers are too few for 2 stages"):
        simulation.run(between)
    assert {member.name for member in simulation.ended} == {"w0", "w1", "w2", "w3"}


def test_what_is_damaged_every_time_is_refused(trained: Task) -> None:
    simulation = Simulation(members(trained, 4, 1), seed=5, steps=STEPS)
    simulation.spoil = lambda key, tensor: tensor.add_(float(key[0] == "prepared"))
    with pytest.raises(MismatchError, match="damaged"):
        simulation.run()


def leaving(trained: Task, told: dict[str, int], count: int) -> Simulation:
    """Members that are told to leave when they have made so many steps, in two stages."""
    made: list[Member] = []
    for number in range(count):
        name = f"w{number}"
        at = told.get(name, STEPS + 1)
        made.append(
            Member(
                name,
                trained,
                pipeline=2,
                arithmetic="same",
                leaving=lambda at=at, number=number: made[number].step >= at,  # type: ignore[misc]
            )
        )
    return Simulation(made, seed=8, steps=STEPS)


@pytest.mark.parametrize("who", ["w0", "w3"])
def test_who_leaves_takes_nothing_along(trained: Task, right: Right, who: str) -> None:
    simulation = leaving(trained, {who: 0}, 4)
    simulation.run()
    assert simulation.ended[0].name == who
    assert simulation.ended.pop(0).step == 2, "told in the first step, moved out in the second"
    assert {who in losses for losses in map(simulation.losses.get, (3, 4)) if losses} == {False}
    check(simulation, right, trained)
    for member in simulation.ended:
        assert member.layout is not None
        assert who not in member.layout.workers
        assert all(backup for row in member.layout.backups for backup in row)
        assert not any(answer.moves for answer in member.recoveries), "nothing was lost with it"


def test_all_who_are_told_to_leave_end_after_the_same_step(trained: Task) -> None:
    # One hears of it a step later: it goes on with what the others have left behind, and ends.
    simulation = leaving(trained, {"w0": 1, "w1": 1, "w2": 2, "w3": 1}, 4)
    simulation.run()
    assert {member.name: member.step for member in simulation.ended} == dict.fromkeys(
        ("w0", "w1", "w2", "w3"), 3
    )
    together = leaving(trained, dict.fromkeys(("w0", "w1", "w2"), 1), 3)
    together.run()
    assert {member.step for member in together.ended} == {2}


def test_a_gate_that_stays_closed_is_told(trained: Task) -> None:
    simulation = Simulation(members(trained, 3, 1), seed=5, steps=8)
    simulation.spoil = lambda key, tensor: tensor.add_(float(key[0] == "state"))

    def between(turn: int) -> None:
        if turn == 60:
            simulation.join(Member("w3", trained, pipeline=1, arithmetic="same"))

    with pytest.raises(GateClosed, match="differ"):
        simulation.run(between)
