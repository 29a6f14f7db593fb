"""The simulation, and that it can fail: one test finds no violation, the others must find one."""

from __future__ import annotations

import pytest
import test_coordinator
import test_unasked
from mutations import ALL, RARE, SHARDS, Mutation

from atoll.sim.checks import Violation
from atoll.sim.run import simulate

SEEDS = 2_000
BLOCK = 50
FOUND = [
    30212,  # a shard that had not heard of its island's end came again, and was taken for a member
    30525,  # a shard that had to leave with its island went first, and its reason counted
    70167,  # a newcomer that was lost, and came back as it is, was taken for a leaver
    1890,  # a member froze by itself in a view that the dead one was not in
    2507,  # it was linked with a peer that the coordinator, started again, did not know yet
    32947,  # a shard alone in its ring was gone before it was asked how far it had come
]
STORE_LOST = 6
MUTANT_SEEDS = 1_500
BEGIN = {
    "a_deposed_leader_answers_without_asking": 1_450,
    "joiners_follow_the_first_ring": 450,
    "links_end_when_a_peer_is_not_listed": 3_050,
    "only_links_of_the_first_ring_count": 480,
}
"""Of the bugs that take many seeds to be seen: from here on few."""


@pytest.mark.simulation
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_seed_keeps_the_invariants(first: int) -> None:
    for seed in range(first, first + BLOCK):
        simulate(seed)


@pytest.mark.simulation
@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_once_found_a_bug_finds_none(seed: int) -> None:
    simulate(seed)


@pytest.mark.simulation
def test_a_job_begins_anew_when_the_coordinator_has_lost_its_disk() -> None:
    trace: list[str] = []
    found = simulate(STORE_LOST, trace=trace.append)
    assert found.lost_stores == 1
    assert found.commits > 0, "of the new job"
    lost = next(n for n, line in enumerate(trace) if "the store is lost" in line)
    assert any("knows nothing" in line for line in trace[lost:]), "the old islands are turned away"


@pytest.mark.simulation
def test_a_seed_replays_exactly() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        simulate(12, trace=trace.append)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 100


@pytest.mark.simulation
@pytest.mark.slow
@pytest.mark.parametrize("mutation", ALL + SHARDS, ids=lambda mutation: mutation.__name__)
def test_a_bug_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)
    first = BEGIN.get(mutation.__name__, 0)
    for seed in range(first, first + MUTANT_SEEDS):
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
    "who_froze_unasked_is_frozen_in_any_view": (
        test_unasked.test_who_froze_unasked_is_asked_while_a_view_is_under_way_to_it
    ),
}


@pytest.mark.parametrize("mutation", RARE, ids=lambda mutation: mutation.__name__)
def test_a_bug_that_is_too_rare_for_that_is_found_by_a_rule(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        RULES[mutation.__name__]()
