"""Speeds: the slowest stage sets the pace, the others only keep it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.elastic.governor import Limits, SimulatedGovernor, govern, slack, stage_speeds
from atoll.elastic.identity import Spine
from atoll.elastic.planner import Costs, split, step_seconds
from atoll.elastic.transition import first_layout
from atoll.errors import MisuseError


def test_slack_is_one_for_the_slowest_stage() -> None:
    assert slack([2.0, 4.0, 0.0]) == (2.0, 1.0, float("inf"))


stages = st.lists(
    st.tuples(st.floats(0.1, 10.0), st.floats(0.3, 1.0), st.floats(1.0, 2.0)), min_size=1
)


@given(stages)
def test_a_step_takes_the_least_time_and_no_stage_is_faster_than_needed(
    drawn: list[tuple[float, float, float]],
) -> None:
    work = [seconds for seconds, _, _ in drawn]
    limits = [Limits(slowest=low, fastest=high) for _, low, high in drawn]
    speeds = stage_speeds(work, limits)
    least = max(seconds / limit.fastest for seconds, limit in zip(work, limits, strict=True))
    times = [seconds / speed for seconds, speed in zip(work, speeds, strict=True)]
    assert max(times) == pytest.approx(least)
    for time, speed, limit in zip(times, speeds, limits, strict=True):
        assert limit.slowest <= speed <= limit.fastest
        assert time == pytest.approx(least) or speed == limit.slowest


def test_speeds_of_a_layout_reach_the_planner() -> None:
    spine = Spine(seed=0, micro_batches=12, layer_sizes=(64,) * 12, vshards=1)
    layout = first_layout(spine, ["a", "b", "c"], pipeline=2)  # two workers, then one
    governor = SimulatedGovernor(
        allowed={"c": Limits(slowest=0.5, fastest=1.5), "a": Limits(slowest=0.5, fastest=1.0)}
    )
    costs = Costs(seconds=(1.0,) * 12)
    passes = (6, 12)
    work = [float(n * len(s.layers)) for n, s in zip(passes, layout.stages, strict=True)]
    speeds = govern(governor, layout, work)
    assert governor.speeds["c"] == speeds[1]
    assert governor.speeds["a"] == governor.speeds["b"] == speeds[0]
    assert max(s for s in speeds) <= 1.5
    fast = (1.0, 1.5)
    cuts = split(costs, workers=(2, 1), micro_batches=12, speeds=fast)
    quick = step_seconds(costs, cuts, workers=(2, 1), micro_batches=12, speeds=fast)
    even = split(costs, workers=(2, 1), micro_batches=12)
    assert quick < step_seconds(costs, even, workers=(2, 1), micro_batches=12)


def test_impossible_speeds_are_refused() -> None:
    with pytest.raises(MisuseError):
        Limits(slowest=2.0, fastest=1.0)
    with pytest.raises(MisuseError):
        SimulatedGovernor().set_speed("a", 2.0)
