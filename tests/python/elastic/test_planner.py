"""Which stage holds which layers: against trying everything, and the table to reach."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.elastic.identity import Spine
from atoll.elastic.planner import Costs, Cuts, moved_layers, split, spread, step_seconds
from atoll.elastic.transition import cuts_of, even_costs, first_layout, improved, repaired
from atoll.errors import MisuseError


def all_cuts(layers: int, stages: int) -> list[Cuts]:
    inner = itertools.combinations(range(1, layers), stages - 1)
    return [(0, *cuts, layers) for cuts in inner]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Costs, list[int], int, list[float], Cuts]:
    layers = draw(st.integers(1, 8))
    stages = draw(st.integers(1, min(4, layers)))
    numbers = st.lists(st.integers(0, 9), min_size=layers, max_size=layers)
    costs = Costs(
        seconds=tuple(map(float, draw(numbers))),
        replicated_bytes=tuple(draw(numbers)),
        sharded_bytes=tuple(draw(numbers)),
        memory_bytes=draw(st.none() | st.integers(5, 60)),
    )
    workers = draw(st.lists(st.integers(1, 4), min_size=stages, max_size=stages))
    speeds = draw(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=stages, max_size=stages))
    before = draw(st.sampled_from(all_cuts(layers, stages)))
    return costs, workers, draw(st.integers(1, 12)), speeds, before


def fits(costs: Costs, cuts: Cuts, workers: list[int]) -> bool:
    return costs.memory_bytes is None or all(
        sum(costs.replicated_bytes[cuts[p] : cuts[p + 1]])
        + -(-sum(costs.sharded_bytes[cuts[p] : cuts[p + 1]]) // workers[p])
        <= costs.memory_bytes
        for p in range(len(workers))
    )


@settings(max_examples=150)
@given(problems(), st.sampled_from([0.0, 0.25]))
def test_no_other_split_is_quicker_or_as_quick_with_fewer_moves(
    problem: tuple[Costs, list[int], int, list[float], Cuts], slack: float
) -> None:
    costs, workers, micro_batches, speeds, before = problem

    def seconds(cuts: Cuts) -> float:
        return step_seconds(
            costs, cuts, workers=workers, micro_batches=micro_batches, speeds=speeds
        )

    possible = [c for c in all_cuts(len(costs.seconds), len(workers)) if fits(costs, c, workers)]

    def planned() -> Cuts:
        return split(
            costs,
            workers=workers,
            micro_batches=micro_batches,
            speeds=speeds,
            before=before,
            slack=slack,
        )

    if not possible:
        with pytest.raises(MisuseError, match="fits"):
            planned()
        return
    found = planned()
    best = min(map(seconds, possible))
    near = [cuts for cuts in possible if seconds(cuts) <= best * (1 + slack)]
    assert found in near
    assert moved_layers(before, found) == min(moved_layers(before, cuts) for cuts in near)


# Fraction of the healthy throughput after one loss: with layers migrated, and with micro-batches
# rerouted alone.
TABLE = [((32, 4, 4, 48), 0.889, 0.750), ((24, 2, 3, 12), 0.800, 0.667)]


@pytest.mark.parametrize(("shape", "migrated", "rerouted"), TABLE)
def test_throughput_after_a_loss(
    shape: tuple[int, int, int, int], migrated: float, rerouted: float
) -> None:
    layers, pipeline, width, micro_batches = shape
    spine = Spine(
        seed=0,
        micro_batches=micro_batches,
        layer_sizes=(64 * width * (width - 1),) * layers,
        vshards=width * (width - 1),
    )
    costs = even_costs(spine)
    names = [f"w{i:02}" for i in range(pipeline * width)]
    healthy = first_layout(spine, names, pipeline=pipeline)

    def seconds(layout: object) -> float:
        stages = layout.stages  # type: ignore[attr-defined]
        return max(
            max(len(own) for own in stage.micro_batches) * len(stage.layers) for stage in stages
        )

    for lost in names:
        alone = repaired(healthy, set(names) - {lost}, spine)
        better = improved(alone, spine, costs)
        assert seconds(healthy) / seconds(alone) == pytest.approx(rerouted, abs=5e-4)
        assert seconds(healthy) / seconds(better) == pytest.approx(migrated, abs=5e-4)
    # The first stage of (8, 8, 8, 8) gives up two layers, which ripple down by (6, 9, 9, 8).
    if layers == 32:
        first = improved(repaired(healthy, set(names[1:]), spine), spine, costs)
        assert moved_layers(cuts_of(healthy), cuts_of(first)) == 3


@pytest.mark.parametrize(("layers", "workers"), [(1, [1, 1]), (3, [1, 0])])
def test_what_cannot_be_split_is_refused(layers: int, workers: list[int]) -> None:
    with pytest.raises(MisuseError, match="every stage needs"):
        split(Costs(seconds=(1.0,) * layers), workers=workers, micro_batches=4)


def test_workers_are_spread_evenly() -> None:
    assert spread(7, 3) == (3, 2, 2)
    with pytest.raises(MisuseError, match="too few"):
        spread(2, 3)
