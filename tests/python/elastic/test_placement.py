"""Owners, backups, and the bytes that changes of layout move."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from atoll.elastic.identity import Spine
from atoll.elastic.layout import Stage, problems
from atoll.elastic.placement import elements, holders, moves, place
from atoll.elastic.transition import even_costs, first_layout, improved, repaired, reshaped
from atoll.errors import MisuseError

BLOCK = 64


def spine_of(width: int, layers: int = 4, micro_batches: int = 8) -> Spine:
    """V = D (D - 1) vshards of one block each in every layer."""
    v = max(1, width * (width - 1))
    return Spine(seed=0, micro_batches=micro_batches, layer_sizes=(BLOCK * v,) * layers, vshards=v)


def names(count: int) -> list[str]:
    return [f"w{i}" for i in range(count)]


@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_backups_are_declustered(width: int) -> None:
    spine = spine_of(width)
    layout = first_layout(spine, names(2 * width), pipeline=2)
    assert problems(layout, spine) == ()
    for layer in range(spine.layers):
        pairs = Counter(zip(layout.owners[layer], layout.backups[layer], strict=True))
        assert len(pairs) == width * (width - 1)
        assert set(pairs.values()) == {1}


@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_after_one_loss_no_state_moves_on_the_critical_path(width: int) -> None:
    spine = spine_of(width)
    layout = first_layout(spine, names(2 * width), pipeline=2)
    for dead in layout.workers:
        alive = set(layout.workers) - {dead}
        after = repaired(layout, alive, spine)
        assert problems(after, spine) == ()
        assert moves(holders(layout, alive, spine), after, spine) == ()
        for row in after.owners:
            assert len(set(Counter(row).values())) == 1
        # In the background: what the dead owned, and what it backed up, is protected again.
        protected = place(3, after.stages, spine, before=after)
        made = moves(holders(after, alive, spine), protected, spine)
        assert not any(move.critical for move in made)
        stage = layout.stages[layout.stage_index(dead)]
        assert elements(made, spine) == 2 * spine.layer_sizes[0] // width * len(stage.layers)


@pytest.mark.parametrize("width", [3, 4, 6])
def test_shrinking_moves_what_the_leaver_had_and_nothing_else(width: int) -> None:
    """D to D - 1: 1.00 times the lower bound, even where backups are not counted as copies."""
    spine = spine_of(width, layers=2)
    layout = first_layout(spine, names(width), pipeline=1)
    after = improved(layout, spine, even_costs(spine), left={"w1"})
    owners_alone = {shard: [layout.owner(shard)] for shard in spine.shards()}
    critical = [move for move in moves(owners_alone, after, spine) if move.critical]
    assert elements(critical, spine) == sum(spine.layer_sizes) // width
    assert {move.source for move in critical} == {"w1"}


def test_a_layer_that_moves_moves_once_and_nothing_else_does() -> None:
    spine = spine_of(4)
    layout = first_layout(spine, names(8), pipeline=2)
    stages = [replace(layout.stages[0], last=1), replace(layout.stages[1], first=1)]
    after = place(2, stages, spine, before=layout)
    made = moves(holders(layout, set(layout.workers), spine), after, spine)
    critical = [move for move in made if move.critical]
    assert elements(critical, spine) == spine.layer_sizes[1]
    assert {move.shard[0] for move in made} == {1}
    # D disjoint sends of a D-th each.
    assert set(Counter(move.source for move in critical).values()) == {3}
    assert set(Counter(move.target for move in critical).values()) == {3}


def contiguous(sizes: list[int], width: int) -> list[int]:
    """ZeRO as usual: the owner of each element of a stage's layers, laid end to end."""
    total = sum(sizes)
    return [width * i // total for i in range(total)]


def test_contiguous_shards_would_move_several_times_as_much() -> None:
    """Of the stage that a layer leaves: how much of what stays changes its owner."""
    width, size, layers = 4, 480, 8
    before = contiguous([size] * layers, width)
    after = contiguous([size] * (layers - 1), width)
    stays = sum(a != b for a, b in zip(before[size:], after, strict=True))
    assert stays >= 1.5 * size  # interleaved: 0


@pytest.mark.parametrize("seed", range(40))
def test_any_history_of_losses_and_joins_gives_usable_layouts(seed: int) -> None:
    rng = random.Random(seed)
    spine = spine_of(3, layers=rng.randint(3, 6), micro_batches=rng.randint(1, 9))
    layout = first_layout(spine, names(rng.randint(3, 9)), pipeline=rng.randint(1, 3))
    costs = even_costs(spine)
    born = 100
    for _ in range(12):
        workers = list(layout.workers)
        draw = rng.random()
        if draw < 0.5 and len(workers) > 1:
            dead = set(rng.sample(workers, rng.randint(1, min(2, len(workers) - 1))))
            after = repaired(layout, set(workers) - dead, spine)
            assert problems(after, spine) == ()
            after = improved(after, spine, costs)
        elif draw < 0.7:
            born += 1
            after = improved(layout, spine, costs, joined=[f"w{born}"])
        elif draw < 0.85:
            after = (
                improved(layout, spine, costs, left={rng.choice(workers)})
                if (len(workers) > 1)
                else layout
            )
        else:
            pipeline = rng.randint(1, min(len(workers), spine.layers))
            after = reshaped(layout, spine, costs, pipeline=pipeline)
        assert problems(after, spine) == ()
        if len(after.workers) > 1:
            assert all(backup is not None for row in after.backups for backup in row)
        layout = after


def test_a_stage_that_lost_everybody_borrows_a_worker_with_its_backups() -> None:
    spine = spine_of(2)
    stages = [
        Stage(first=0, last=2, workers=("a",), micro_batches=(tuple(range(8)),)),
        Stage(
            first=2, last=4, workers=("b", "c"), micro_batches=(tuple(range(4)), tuple(range(4, 8)))
        ),
    ]
    layout = place(1, stages, spine)
    after = repaired(layout, {"b", "c"}, spine)
    assert [len(stage.workers) for stage in after.stages] == [1, 1]
    assert problems(after, spine) == ()


def test_without_a_worker_to_borrow_there_is_a_stage_less() -> None:
    spine = spine_of(2)
    layout = first_layout(spine, names(3), pipeline=3)
    after = repaired(layout, {"w0", "w2"}, spine)
    assert len(after.stages) == 2
    assert problems(after, spine) == ()
    with pytest.raises(MisuseError, match="checkpoint"):
        repaired(layout, set(), spine)


def test_owners_are_evened_out_by_changing_roles() -> None:
    """After two losses one owner may have more than its part: its backups take some over."""
    spine = spine_of(4, layers=1)
    layout = first_layout(spine, names(4), pipeline=1)
    once = repaired(layout, {"w1", "w2", "w3"}, spine)
    twice = repaired(once, {"w2", "w3"}, spine)
    even = improved(twice, spine, even_costs(spine))
    counts = Counter(even.owners[0])
    assert max(counts.values()) - min(counts.values()) <= 1
    made = moves(holders(twice, set(twice.workers), spine), even, spine)
    assert [move for move in made if move.critical] == []
