"""Every order of events in small jobs keeps the invariants, and would not if a rule were broken."""

from __future__ import annotations

import mutations
import pytest
from mutations import Mutation

from atoll.sim.cases import QUICK
from atoll.sim.checks import Violation
from atoll.sim.explore import explore
from atoll.sim.states import Case

STATES = {
    "nothing": 6_000,
    "crash": 1_000,
    "crash-impatient": 6_000,
    "join": 11_000,
    "leave": 12_000,
    "cut": 60_000,
    "restart": 9_000,
    "crash-of-three": 38_000,
}
"""At least: a search that stops early, or tries less, is none."""

CAUGHT: list[tuple[str, Mutation]] = [
    ("crash", mutations.the_fence_is_skipped),
    ("nothing", mutations.an_op_commits_on_the_first_done),
    ("crash", mutations.an_epoch_is_used_again),
    ("cut", mutations.start_is_the_largest_done),
    ("leave", mutations.start_of_a_drain_is_the_smallest_started),
    ("crash-impatient", mutations.nobody_freezes),
    ("leave", mutations.one_answer_is_enough),
    ("crash-of-three", mutations.the_fence_is_skipped),
    ("crash-of-three", mutations.an_op_commits_on_the_first_done),
    ("crash-of-three", mutations.nobody_freezes),
]


def _case(name: str) -> Case:
    return next(case for case in QUICK if case.name == name)


@pytest.mark.simulation
@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_every_order_keeps_the_invariants_and_ends_well(case: Case) -> None:
    found = explore(case)
    assert found.states >= STATES[case.name]
    assert found.paths > found.ends > 0


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("name", "mutation"), CAUGHT, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_bug_is_found_whatever_its_seed(
    name: str, mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    with pytest.raises(Violation):
        explore(_case(name))
