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


@given(st.data())
def test_every_position_is_used_exactly_once_a_pass(data: st.DataObject) -> None:
    samples = data.draw(st.integers(1, 60))
    ledger = begun(
        data.draw(st.integers(1, 4)),
        samples,
        data.draw(st.integers(1, 5)),
        data.draw(st.integers(1, 4)),
    )
    seen: list[int] = []
    for _ in range(400):
        if ledger.epoch == 1:
            break
        # Losses, and joiners that are in the view without a share.
        weights = [float(data.draw(st.integers(0, 1))) for _ in ledger.shares]
        weights = [
            weight if share.spans else 0.0
            for weight, share in zip(weights, ledger.shares, strict=True)
        ]
        ledger, used = ledgers.settled(ledger, weights)
        seen += positions(used)
        members = data.draw(st.lists(st.sampled_from(PEERS), min_size=1, unique=True))
        ledger = ledgers.assigned(ledger, members)
        assert ledgers.from_json(json.loads(json.dumps(ledgers.to_json(ledger)))) == ledger
    else:
        weights = [1.0 if share.spans else 0.0 for share in ledger.shares]
        while ledger.epoch == 0:
            ledger, used = ledgers.settled(ledger, [1.0 if s.spans else 0.0 for s in ledger.shares])
            seen += positions(used)
            ledger = ledgers.assigned(ledger, PEERS[:2])
    assert sorted(seen) == list(range(samples))


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
