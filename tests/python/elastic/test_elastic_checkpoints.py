"""Checkpoints of an elastic island: beyond redundancy the run goes on from there, to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from models import task
from simulated import Simulation

from atoll.checkpoint.write import Origin
from atoll.elastic.durable import Durable
from atoll.elastic.member import Member
from atoll.elastic.oracle import Oracle
from atoll.elastic.task import Task
from atoll.errors import CheckpointError, ConfigError, MismatchError, StateUnavailable

pytestmark = [pytest.mark.training, pytest.mark.simulation]

STEPS = 5


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
def right(trained: Task) -> tuple[Oracle, list[float]]:
    oracle = Oracle(trained)
    return oracle, [oracle.train_step() for _ in range(STEPS)]


def durable(folder: Path, job: str = "reef") -> Durable:
    origin = Origin(job=job, island="east", software="0")
    return Durable(str(folder), origin, every=1, keep=2)


def life(trained: Task, names: str, folder: Path, *, steps: int, seed: int = 1) -> Simulation:
    """Members of one life of the run, each with its checkpoints."""
    found = {name: durable(folder) for name in names}
    members = [
        Member(name, trained, pipeline=2, arithmetic="same", durable=found[name]) for name in names
    ]
    simulation = Simulation(members, seed=seed, steps=steps)

    def after_step(member: Member) -> None:
        assert member.layout is not None
        found[member.name].step_over(member.worker, member.layout)
        found[member.name].wait()

    simulation.after_step = after_step
    return simulation


def check(simulation: Simulation, right: tuple[Oracle, list[float]], begun: int) -> None:
    oracle, losses = right
    assert set(simulation.losses) == set(range(begun + 1, STEPS + 1))
    for step, found in simulation.losses.items():
        assert set(found.values()) == {losses[step - 1]}
    for member in simulation.ended:
        for (layer, v), state in (*member.worker.owned.items(), *member.worker.shadows.items()):
            begin, end = oracle._spine.bounds((layer, v))
            assert state.version == STEPS
            assert torch.equal(state.p, oracle.layers[layer].parameters[begin:end])
            assert torch.equal(state.m, oracle.moments[layer].m[begin:end])
            assert torch.equal(state.v, oracle.moments[layer].v[begin:end])


def test_beyond_redundancy_other_workers_go_on(
    trained: Task, right: tuple[Oracle, list[float]], tmp_path: Path
) -> None:
    first = life(trained, "abcd", tmp_path, steps=STEPS)

    def between(turn: int) -> None:
        layout = first.seats["a"].member.layout if "a" in first.seats else None
        if layout is not None and len(first.losses.get(3, {})) == 4 and len(first.members) == 4:
            first.kill(layout.owner((0, 0)), str(layout.backup((0, 0))))

    with pytest.raises(StateUnavailable, match="checkpoint"):
        first.run(between)
    # Fewer than before, and none of them was there.
    second = life(trained, "xyz", tmp_path, steps=STEPS, seed=2)
    second.run()
    check(second, right, begun=3)
    assert {entry.name for entry in tmp_path.iterdir()} == {f"part-0000{n}" for n in range(4)}


def test_the_newest_whole_one_is_taken_and_old_ones_go(
    trained: Task, right: tuple[Oracle, list[float]], tmp_path: Path
) -> None:
    life(trained, "abc", tmp_path, steps=4).run()
    rounds = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "part-00002").iterdir())
    # Of step 4 nobody has heard yet that all have written it.
    assert rounds == [2, 3, 4]
    (newest,) = (tmp_path / "part-00001").glob("round-0000000004-*")
    (second,) = (tmp_path / "part-00000").glob("round-0000000003-*")
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()  # a part is missing
    (file,) = second.glob("m-*.safetensors")
    file.write_bytes(bytes(byte ^ (at == 99) for at, byte in enumerate(file.read_bytes())))
    after = life(trained, "abcdef", tmp_path, steps=STEPS)
    after.run()
    check(after, right, begun=2)


def test_a_run_never_begins_anew_by_mistake(trained: Task, tmp_path: Path) -> None:
    life(trained, "ab", tmp_path / "here", steps=1).run()
    here = tmp_path / "here"
    split = life(trained, "ab", here, steps=2)
    split.seats["b"].member._durable = durable(tmp_path / "elsewhere")
    with pytest.raises(MismatchError, match="must reach the same"):
        split.run()
    other = task(blocks=2, micro_batches=2, vshards=6)
    with pytest.raises(MismatchError, match="another task"):
        life(other, "ab", here, steps=2).run()
    with pytest.raises(ConfigError, match="job"):
        durable(here, job="atoll").found(trained.spine().digest())
    for path in (here / "part-00001").rglob("p-*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints is whole"):
        life(trained, "ab", here, steps=2).run()
    for path in (here / "part-00001").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(CheckpointError, match="all parts"):
        life(trained, "ab", here, steps=2).run()


def test_a_run_that_had_no_whole_checkpoint_yet_begins_anew(
    trained: Task, right: tuple[Oracle, list[float]], tmp_path: Path
) -> None:
    """Killed between two workers' first writes; once one was whole, a lost part is an error."""
    life(trained, "ab", tmp_path, steps=1).run()
    shutil.rmtree(tmp_path / "part-00001")
    again = life(trained, "xyz", tmp_path, steps=STEPS, seed=2)
    again.run()
    check(again, right, begun=0)
    for part in range(3):
        for path in (tmp_path / f"part-0000{part}").glob("round-*"):
            if part == 1 or int(path.name.split("-")[1]) < STEPS:
                shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="of none of 1 checkpoints all parts are there"):
        life(trained, "ab", tmp_path, steps=STEPS).run()


def test_damaged_manifests_are_no_reason_to_begin_anew(trained: Task, tmp_path: Path) -> None:
    life(trained, "ab", tmp_path, steps=1).run()
    for path in tmp_path.rglob("manifest.json"):
        path.write_text("")
    with pytest.raises(CheckpointError, match="of none of 1 checkpoints all parts are there"):
        life(trained, "ab", tmp_path, steps=STEPS).run()
