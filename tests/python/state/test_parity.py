"""Votes on states: the majority, and the oldest on a tie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.state.parity import NO_VOTE, Vote, judged, vote_of

A, B, C = (vote_of(text * 32) for text in "abc")


@pytest.mark.parametrize(
    ("votes", "right", "wrong"),
    [
        ([A, A, A], (0, 1, 2), ()),
        ([B, A, A], (1, 2), (0,)),
        ([A, B, A], (0, 2), (1,)),
        ([A, B], (0,), (1,)),  # nobody is more than the other: the older one's
        ([B, A, A, B], (0, 3), (1, 2)),
        ([A, B, C], (0,), (1, 2)),
        ([NO_VOTE, A], (1,), ()),  # who does not vouch for its state does not win
        ([NO_VOTE, B, A, A], (2, 3), (1,)),
        ([NO_VOTE, NO_VOTE], (), ()),
        ([], (), ()),
    ],
)
def test_the_verdict(votes: list[Vote], right: tuple[int, ...], wrong: tuple[int, ...]) -> None:
    verdict = judged(votes)
    assert (verdict.right, verdict.wrong) == (right, wrong)


@given(st.text("0123456789abcdef", min_size=32, max_size=32))
def test_a_vote_has_32_bits_and_is_one(digest: str) -> None:
    assert vote_of(digest) != NO_VOTE
    assert 0 < vote_of(digest) < 1 << 32


def test_other_digests_are_other_votes() -> None:
    zero = "0" * 32
    assert vote_of(zero) != NO_VOTE
    for at in range(8):
        changed = zero[:at] + "7" + zero[at + 1 :]
        assert vote_of(changed) != vote_of(zero)
