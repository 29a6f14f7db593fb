"""The ledger: every position is used exactly once a pass, whatever happens to the members."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.data import ledger as ledgers
from atoll.data.ledger import Ledger, Plan, Share

PEERS = [bytes([index]) * 16 for index in range(6)]


def begun(members: int, samples: int, batch_size: int, steps: int) -> Ledger:
    named = ledgers.assigned(Ledger(), PEERS[:members])
    return ledgers.opened(named, Plan(samples=samples, batch_size=batch_size, steps=steps))


def positions(shares: tuple[Share, ...]) -> list[int]:
    return [at for share in shares for begin, end in share.spans for at in range(begin, end)]


def test_a_round_takes_from_the_front() -> None:
    ledger = begun(3, samples=100, batch_size=4, steps=2)
    assert [share.spans for share in ledger.shares] == [((0, 8),), ((8, 16),), ((16, 24),)]
    assert ledger.pool == ((24, 100),)


def test_a_lost_members_share_is_given_away_next() -> None:
    ledger = begun(3, samples=100, batch_size=4, steps=2)
    after, used = ledgers.settled(ledger, [8.0, 0.0, 8.0])
    assert positions(used) == [*range(8), *range(16, 24)]
    again = ledgers.assigned(after, [PEERS[0], PEERS[2]])
    assert again.shares[0].spans == ((8, 16),)


def test_the_end_of_a_pass_is_spread_over_the_members() -> None:
    ledger = begun(3, samples=10, batch_size=4, steps=5)
    assert [ledgers.count(share.spans) for share in ledger.shares] == [4, 4, 2]


def test_a_pass_ends_only_when_all_is_used() -> None:
    ledger = begun(2, samples=8, batch_size=4, steps=5)
    after, _ = ledgers.settled(ledger, [4.0, 0.0])
    assert (after.epoch, after.pool) == (0, ((4, 8),))
    after, _ = ledgers.settled(ledgers.assigned(after, PEERS[:1]), [4.0])
    assert (after.epoch, after.pool) == (1, ((0, 8),))


@given(
    begun=st.builds(
        begun, st.integers(1, 4), st.integers(1, 60), st.integers(1, 5), st.integers(1, 4)
    ),
    rounds=st.lists(
        st.tuples(
            st.lists(st.booleans(), min_size=len(PEERS), max_size=len(PEERS)),
            st.lists(st.sampled_from(PEERS), min_size=1, unique=True),
        ),
        max_size=30,
    ),
)
def test_every_position_is_used_exactly_once_a_pass(
    begun: Ledger, rounds: list[tuple[list[bool], list[bytes]]]
) -> None:
    """Rounds with losses, and joiners that are in the view without a share; then without losses."""
    assert begun.plan is not None
    samples = begun.plan.samples
    # Every round without losses uses a position at least.
    undisturbed = [([True] * len(PEERS), PEERS[:2])] * (samples + 1)
    ledger = begun
    seen: list[int] = []
    for survives, members in [*rounds, *undisturbed]:
        weights = [
            1.0 if share.spans and lives else 0.0
            for share, lives in zip(ledger.shares, survives, strict=False)
        ]
        ledger, used = ledgers.settled(ledger, weights)
        seen += positions(used)
        if ledger.epoch == 1:
            break
        ledger = ledgers.assigned(ledger, members)
        assert ledgers.from_json(json.loads(json.dumps(ledgers.to_json(ledger)))) == ledger
    assert ledger.epoch == 1
    assert sorted(seen) == list(range(samples))


@given(
    begun=st.builds(
        begun, st.integers(1, 4), st.integers(1, 60), st.integers(1, 5), st.integers(1, 4)
    ),
    rounds=st.lists(
        st.tuples(
            st.lists(st.booleans(), min_size=len(PEERS), max_size=len(PEERS)),
            st.lists(st.sampled_from(PEERS), min_size=1, unique=True),
        ),
        max_size=30,
    ),
)
def test_a_round_ahead_every_position_is_used_exactly_once_a_pass(
    begun: Ledger, rounds: list[tuple[list[bool], list[bytes]]]
) -> None:
    assert begun.plan is not None
    peers = [share.peer for share in begun.shares]
    ledger = ledgers.opened(ledgers.assigned(Ledger(lead=True), peers), begun.plan)
    samples = begun.plan.samples
    undisturbed = [([True] * len(PEERS), PEERS[:2])] * (2 * samples + 4)
    seen: list[int] = []
    for survives, members in [*rounds, *undisturbed]:
        # Whoever trains ahead knows the pass without waiting for what is not settled.
        if any(share.spans for share in ledger.ahead):
            assert ledger.ahead_epoch == ledger.epoch
        weights = [
            1.0 if share.spans and lives else 0.0
            for share, lives in zip(ledger.shares, survives, strict=False)
        ]
        ledger, used = ledgers.settled(ledger, weights)
        seen += positions(used)
        if ledger.epoch == 1:
            break
        ledger = ledgers.assigned(ledger, members)
        assert ledgers.from_json(json.loads(json.dumps(ledgers.to_json(ledger)))) == ledger
    assert ledger.epoch == 1
    assert sorted(seen) == list(range(samples))


@given(
    st.builds(
        Plan, samples=st.integers(1, 60), batch_size=st.integers(1, 5), steps=st.integers(1, 4)
    ),
    st.integers(0, 3),
    st.lists(st.sampled_from(PEERS), min_size=1, unique=True),
)
def test_a_round_that_begins_again_with_others_loses_nothing(
    plan: Plan, rounds: int, members: list[bytes]
) -> None:
    ledger = ledgers.opened(ledgers.assigned(Ledger(), PEERS), plan)
    for _ in range(rounds):
        ledger, _ = ledgers.settled(ledger, [1.0] * len(ledger.shares))
        ledger = ledgers.assigned(ledger, PEERS)
    again = ledgers.reassigned(ledger, members)
    assert [share.peer for share in again.shares] == members
    assert (again.epoch, again.plan) == (ledger.epoch, ledger.plan)
    open_before, open_after = (
        ledgers.union(one.pool, *(share.spans for share in one.shares)) for one in (ledger, again)
    )
    assert open_after == open_before


def test_members_without_a_data_set() -> None:
    assert ledgers.reassigned(Ledger(), PEERS[:2]) == ledgers.assigned(Ledger(), PEERS[:2])


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=6),
    st.integers(0, 100),
)
def test_take_splits_and_union_joins(raw: list[tuple[int, int]], wanted: int) -> None:
    at, spans = 0, []
    for gap, length in raw:
        spans.append((at + gap + 1, at + gap + 1 + length))
        at = spans[-1][1]
    whole = tuple(spans)
    taken, rest = ledgers.take(whole, wanted)
    assert ledgers.count(taken) == min(wanted, ledgers.count(whole))
    assert ledgers.union(rest, taken) == ledgers.union(whole)


def test_the_same_positions_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        ledgers.union([(0, 4)], [(3, 5)])


def test_batches_cross_spans() -> None:
    assert list(ledgers.batches(((0, 3), (7, 9)), 2)) == [[0, 1], [2, 7], [8]]
