"""The simulator against a dumb twin that goes through every unit and every event."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator_twin import Twin

from atoll.planning.simulate import Cost, Exchange, Schedule, clocks, simulate

PERIODS = 4
SECONDS = st.integers(0, 40).map(lambda tenths: tenths / 8)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[Schedule, np.ndarray]:
    """Any exchanges at all, among some islands of which each may be slower."""
    islands = draw(st.integers(1, 4))
    units = draw(st.integers(1, 5))
    every = draw(st.integers(1, 4))
    exchanges = []
    for number in range(draw(st.integers(0, 4))):
        step = draw(st.integers(0, every - 1))
        by_island = st.lists(SECONDS, min_size=islands, max_size=islands).map(np.array)
        busy, latency = draw(by_island), draw(by_island)
        groups = draw(
            st.none()
            | st.lists(
                st.lists(st.integers(0, 2), min_size=islands, max_size=islands),
                min_size=PERIODS + 1,
                max_size=PERIODS + 1,
            )
        )

        def cost(
            period: int, busy: object = busy, latency: object = latency, groups: object = groups
        ) -> Cost:
            group = None if groups is None else np.array(groups[period])
            return Cost(busy_s=busy, latency_s=latency, group=group)

        exchanges.append(
            Exchange(
                step=step,
                ready=draw(st.integers(0, units)),
                needed_in=step + 1 + draw(st.integers(0, 5)),
                needed=draw(st.integers(0, units - 1)),
                fragment=number,
                cost=cost,
            )
        )
    step_s = np.array([draw(st.integers(1, 20)) * units / 8 for _ in range(islands)])
    return Schedule(every=every, units=units, exchanges=tuple(exchanges)), step_s


@settings(max_examples=300)
@given(jobs())
def test_the_simulator_is_its_twin(job: tuple[Schedule, np.ndarray]) -> None:
    schedule, step_s = job
    expected = Twin(schedule, step_s, PERIODS).run()
    np.testing.assert_allclose(clocks(schedule, step_s, PERIODS), expected, rtol=1e-12)


def one_exchange(every: int, busy_s: float, latency_s: float = 0.0, overlap: int = 0) -> Schedule:
    cost = Cost(busy_s=busy_s, latency_s=latency_s)
    exchange = Exchange(
        step=0, ready=2, needed_in=1 + overlap, needed=0, fragment=0, cost=lambda period: cost
    )
    return Schedule(every=every, units=2, exchanges=(exchange,))


def test_what_is_not_overlapped_is_waited_for() -> None:
    timing = simulate(one_exchange(4, 3.0, 0.5), np.array([1.0]))
    assert timing.period_s == pytest.approx([4 + 3.5])
    assert timing.sync_s == pytest.approx(3.5)
    hidden = simulate(one_exchange(4, 1.0, 0.5, overlap=2), np.array([1.0]))
    assert hidden.period_s == pytest.approx([4.0])
    assert simulate(one_exchange(4, 3.0, overlap=2), np.array([1.0])).period_s == pytest.approx([5])


def test_a_link_with_more_to_carry_than_time_sets_the_pace() -> None:
    timing = simulate(one_exchange(2, 5.0, overlap=3), np.array([1.0, 0.5]))
    assert timing.period_s == pytest.approx([5.0, 5.0])


def test_the_slowest_island_holds_up_all_that_exchange_with_it() -> None:
    timing = simulate(one_exchange(4, 1.0), np.array([1.0, 2.0, 1.0]))
    assert timing.period_s == pytest.approx([9.0] * 3)


def test_pairs_wait_for_their_partner_alone() -> None:
    cost = Cost(busy_s=0.0, latency_s=0.0, group=np.array([0, 0, 1, 1]))
    exchange = Exchange(
        step=0, ready=1, needed_in=1, needed=0, fragment=0, cost=lambda period: cost
    )
    schedule = Schedule(every=1, units=1, exchanges=(exchange,))
    timing = simulate(schedule, np.array([1.0, 3.0, 1.0, 2.0]))
    assert timing.period_s == pytest.approx([3.0, 3.0, 2.0, 2.0])
