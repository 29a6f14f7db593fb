"""Who is kept when some cannot reach each other: the fast function against its dumb twin."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from atoll.membership.suspicion import EXACT_LIMIT, largest_clique


def brute_force(count: int, severed: set[tuple[int, int]]) -> tuple[int, ...]:
    """Largest first, older first: the first set without a severed pair."""
    apart = {frozenset(pair) for pair in severed}
    for size in range(count, 0, -1):
        for chosen in combinations(range(count), size):
            if not any(frozenset(pair) in apart for pair in combinations(chosen, 2)):
                return chosen
    return ()


def graphs(most: int) -> st.SearchStrategy[tuple[int, set[tuple[int, int]]]]:
    return st.integers(0, most).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.sets(st.sampled_from(list(combinations(range(count), 2))))
            if count > 1
            else st.just(set()),
        )
    )


@given(graphs(8))
def test_the_largest_set_is_found_and_the_older_one_of_two(
    graph: tuple[int, set[tuple[int, int]]],
) -> None:
    count, severed = graph
    assert largest_clique(count, severed) == brute_force(count, severed)


@given(graphs(40))
def test_any_number_gives_a_set_that_cannot_be_extended(
    graph: tuple[int, set[tuple[int, int]]],
) -> None:
    count, severed = graph
    kept = largest_clique(count, severed)
    apart = {frozenset(pair) for pair in severed}
    assert not any(frozenset(pair) in apart for pair in combinations(kept, 2))
    for rank in set(range(count)) - set(kept):
        assert any(frozenset((rank, other)) in apart for other in kept)


def test_direction_and_repetition_do_not_matter() -> None:
    assert largest_clique(3, [(2, 0), (0, 2), (1, 1)]) == (0, 1)


def test_a_star_of_more_than_the_exact_limit_loses_its_centre() -> None:
    count = EXACT_LIMIT + 5
    severed = [(0, other) for other in range(1, count)]
    assert largest_clique(count, severed) == tuple(range(1, count))
