"""The simulation, and that it can fail: one test finds no violation, the others must find one."""

from __future__ import annotations

import pytest
import test_coordinator
from mutations import ALL, RARE, Mutation

from atoll.sim.checks import Violation
from atoll.sim.run import simulate

SEEDS = 500
BLOCK = 25
MUTANT_SEEDS = 600


@pytest.mark.simulation
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_seed_keeps_the_invariants(first: int) -> None:
    for seed in range(first, first + BLOCK):
        simulate(seed)


@pytest.mark.simulation
def test_a_seed_replays_exactly() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        simulate(12, trace=trace.append)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 100


@pytest.mark.simulation
@pytest.mark.slow
@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.__name__)
def test_a_bug_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    for seed in range(MUTANT_SEEDS):
        try:
            simulate(seed)
        except (Violation, KeyError):
            return
    pytest.fail(f"{MUTANT_SEEDS} seeds did not notice that {mutation.__name__}")


RULES = {
    "an_attempt_is_like_the_other": (
        test_coordinator.test_an_abort_supersedes_a_drain_and_late_answers_do_not_count
    ),
    "whatever_was_fetched_is_the_state": (
        test_coordinator.test_what_was_fetched_before_the_state_was_lost_does_not_count
    ),
}


@pytest.mark.parametrize("mutation", RARE, ids=lambda mutation: mutation.__name__)
def test_a_bug_that_is_too_rare_for_that_is_found_by_a_rule(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        RULES[mutation.__name__]()
