"""Every layout, and every way from one to another, has the bits of the run without failures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from histories import MOMENTS, Kills, drawn_layout, names
from models import assert_equal, task

from atoll.elastic import flat
from atoll.elastic.local import LocalIsland, Moment
from atoll.elastic.oracle import Oracle
from atoll.elastic.transition import (
    even_costs,
    first_layout,
    improved,
    reshaped,
)
from atoll.errors import MisuseError, StateUnavailable

pytestmark = pytest.mark.training


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("seed", range(6))
def test_any_layout_has_the_oracles_bits(seed: int, schedule: str) -> None:
    rng = random.Random(seed)
    trained = task(micro_batches=rng.choice([1, 5, 6]), vshards=rng.choice([1, 6]))
    oracle = Oracle(trained)
    island = LocalIsland(trained, drawn_layout(trained.spine(), rng), schedule=schedule)
    for _ in range(2):
        assert island.train_step() == oracle.train_step()
        assert_equal(island, oracle)


def test_it_learns() -> None:
    """Or equality would be that of two runs in which nothing happens."""
    one_batch = task()
    same = replace(one_batch, batch=lambda step, mb: one_batch.batch(0, mb))
    oracle = Oracle(same)
    losses = [oracle.train_step() for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_sums_in_the_workers_order_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: data parallelism as usual has other bits in another layout."""
    trained = task(micro_batches=6, vshards=2)
    spine = trained.spine()

    def parameters(workers: int) -> torch.Tensor:
        layout = first_layout(spine, names(workers), pipeline=1)
        island = LocalIsland(trained, layout)
        for worker in island.workers.values():
            naive(worker)
        island.train_step()
        return torch.cat([layer.parameters for layer in island.workers["w0"].layers.values()])

    def naive(worker: object) -> None:
        """Each worker adds up what it has, in its order; the owner adds up the workers' sums."""

        def nodes(shard: tuple[int, int], layer: int) -> list[tuple[tuple[int, int], torch.Tensor]]:
            begin, end = spine.bounds(shard)
            sums = worker._sums[shard[0]]  # type: ignore[attr-defined]
            own = sums.nodes()
            total = sum(sums.value(node)[begin:end] for node in own)
            rest = [(node, torch.zeros(end - begin)) for node in own[1:]]
            return [(own[0], total), *rest]  # type: ignore[list-item]

        worker.nodes = nodes  # type: ignore[attr-defined]

    assert not torch.equal(parameters(2), parameters(3))


@pytest.mark.parametrize("dead", ["w0", "w4"])
@pytest.mark.parametrize(("moment", "nth"), MOMENTS)
def test_a_loss_changes_no_bit(moment: Moment, nth: int, dead: str) -> None:
    trained = task()
    spine = trained.spine()
    oracle = Oracle(trained)
    kills = Kills(moment, nth, dead)
    island = LocalIsland(trained, first_layout(spine, names(6), pipeline=2), killer=kills)
    assert island.train_step() == oracle.train_step()
    assert kills.happened
    assert dead not in island.workers
    assert_equal(island, oracle)
    assert not any(move.critical for move in island.moved)
    island.relayout(improved(island.layout, spine, even_costs(spine)))
    assert all(backup for row in island.layout.backups for backup in row)
    assert island.train_step() == oracle.train_step()
    assert_equal(island, oracle)


@pytest.mark.parametrize(("moment", "nth"), MOMENTS)
def test_a_loss_changes_no_bit_where_workers_have_stages_in_turns(moment: Moment, nth: int) -> None:
    trained = task()
    spine = trained.spine()
    oracle = Oracle(trained)
    kills = Kills(moment, nth, "w1")
    layout = first_layout(spine, names(5), pipeline=2, chunks=2)
    assert (len(layout.stages), len(layout.groups), layout.chunks) == (4, 2, 2)
    island = LocalIsland(trained, layout, killer=kills)
    assert island.train_step() == oracle.train_step()
    assert kills.happened
    assert_equal(island, oracle)
    assert not any(move.critical for move in island.moved)
    island.relayout(improved(island.layout, spine, even_costs(spine), joined=["w9"]))
    assert (len(island.layout.groups), island.layout.chunks) == (2, 2)
    assert all(backup for row in island.layout.backups for backup in row)
    assert island.train_step() == oracle.train_step()
    assert_equal(island, oracle)


@pytest.mark.parametrize("seed", range(12))
def test_any_history_has_the_oracles_bits(seed: int) -> None:
    """Losses one after the other and at once, in recovery, too; joins, leaves, other pipelines,
    stages in turns and not."""
    rng = random.Random(1000 + seed)
    trained = task(vshards=rng.choice([2, 6]))
    spine = trained.spine()
    oracle = Oracle(trained)
    born = 6
    pending: list[Kills] = []

    def killer(moment: Moment) -> frozenset[str]:
        return frozenset[str]().union(*(kills(moment) for kills in pending))

    pipeline = rng.randint(1, 3)
    chunks = rng.randint(1, 2) if pipeline == 2 else 1
    layout = first_layout(spine, names(born), pipeline=pipeline, chunks=chunks)
    island = LocalIsland(trained, layout, schedule=rng.choice(["gpipe", "1f1b"]), killer=killer)
    costs = even_costs(spine)
    for _ in range(4):
        workers = list(island.layout.workers)
        pending[:] = []
        if len(workers) > 2:
            moment, nth = rng.choice(MOMENTS)
            pending.append(Kills(moment, nth, rng.choice(workers)))
        assert island.train_step() == oracle.train_step()
        assert_equal(island, oracle)
        draw = rng.random()
        workers = list(island.layout.workers)
        pending[:] = []
        if draw < 0.5:
            born += 1
            island.relayout(improved(island.layout, spine, costs, joined=[f"w{born}"]))
        elif draw < 0.7 and len(workers) > 2:
            island.relayout(improved(island.layout, spine, costs, left={rng.choice(workers)}))
        else:
            pipeline = rng.randint(1, min(3, len(workers)))
            chunks = rng.randint(1, 2) if pipeline == 2 else 1
            island.relayout(reshaped(island.layout, spine, costs, pipeline=pipeline, chunks=chunks))
        assert_equal(island, oracle)


def test_two_at_once_in_different_stages_change_no_bit_and_what_is_beyond_copies_is_refused() -> (
    None
):
    trained = task()
    spine = trained.spine()
    oracle = Oracle(trained)
    at_once, again = Kills("backward", 5, "w1", "w4"), Kills("backward", 9, "w0")
    island = LocalIsland(
        trained,
        first_layout(spine, names(6), pipeline=2),
        killer=lambda moment: at_once(moment) | again(moment),
    )
    # The second loss takes a backup that has just become an owner: beyond what copies can bear
    # for some vshards, unless they were protected again.
    with pytest.raises(StateUnavailable, match="checkpoint"):
        island.train_step()
    once = Kills("backward", 5, "w1", "w4")
    island = LocalIsland(trained, first_layout(spine, names(6), pipeline=2), killer=once)
    assert island.train_step() == oracle.train_step()
    assert_equal(island, oracle)


def test_nobody_waits_for_the_updates_of_shadows() -> None:
    """They are left for later, and made before anybody sees a shadow."""
    trained = task()
    island = LocalIsland(trained, first_layout(trained.spine(), names(4), pipeline=2))
    island.train_step()
    for worker in island.workers.values():
        assert len(worker._late) == len(worker._shadows) > 0
        before = {shard: state.p.clone() for shard, state in worker._shadows.items()}
        held = worker.shadows
        assert worker._late == []
        assert not any(torch.equal(before[s], state.p) for s, state in held.items() if len(state.p))


def test_work_is_redone_only_where_nobody_holds_it() -> None:
    trained = task(micro_batches=8, vshards=2)
    spine = trained.spine()
    layout = first_layout(spine, names(4), pipeline=2)
    kills = Kills("backward", 9, "w2")
    island = LocalIsland(trained, layout, schedule="gpipe", killer=kills)
    island.train_step()
    ((first, second),) = island.redone
    lost = set(layout.micro_batches_of("w2"))
    assert second.leaf & lost == lost
    assert second.leaf == second.backward
    # The stage below sends its outputs again; it makes no forward pass twice.
    assert first.forward == frozenset()


def test_bad_layouts_and_schedules_are_refused() -> None:
    trained = task()
    layout = first_layout(trained.spine(), names(2), pipeline=2)
    with pytest.raises(MisuseError, match="schedule"):
        LocalIsland(trained, layout, schedule="zigzag")
    with pytest.raises(MisuseError, match="layout"):
        LocalIsland(trained, replace(layout, stages=layout.stages[:1]))
    with pytest.raises(MisuseError, match="every stage"):
        first_layout(trained.spine(), names(9), pipeline=9)
    turns = first_layout(trained.spine(), names(4), pipeline=2, chunks=2)
    other = replace(turns.stages[3], micro_batches=turns.stages[3].micro_batches[::-1])
    with pytest.raises(MisuseError, match="groups do not take turns"):
        LocalIsland(trained, replace(turns, stages=(*turns.stages[:3], other)))


def test_batch_statistics_are_refused() -> None:
    trained = task()
    with pytest.raises(MisuseError, match="BatchNorm"):
        replace(trained, layers=[torch.nn.BatchNorm1d(3)])


def test_the_trees_order_is_part_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """If siblings were added with anything else between, the tests above would see it."""
    trained = task()
    oracle = Oracle(trained)
    island = LocalIsland(trained, first_layout(trained.spine(), names(3), pipeline=1))
    monkeypatch.setattr(flat, "add", lambda left, right: left.add_(right).mul_(1 + 2**-20))
    for worker in island.workers.values():
        worker._begin_step()
    island.train_step()
    oracle.train_step()
    with pytest.raises(AssertionError):
        assert_equal(island, oracle)
