"""What a revocation does to tokens that were made before it, used or not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from atoll.trust.authority import Authority, fingerprint, new_request
from atoll.trust.enrollment import Admission, Enrollment, EnrollmentRefused, admit, refuse_void
from atoll.trust.tokens import Token, encode, proof_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = NOW.timestamp()
AUTHORITY = Authority.create(job="reef", days=1, now=NOW)
_, REQUEST = new_request("palm")


def admission(token_island: str, asked: str = "palm") -> Admission:
    """Of a token that was made now, for one island or for any."""
    token = Token(
        id="ab" * 16,
        job="reef",
        island=token_island,
        enroll="coral:7001",
        authority=fingerprint(AUTHORITY.certificate),
        made_s=NOW_S,
        expires_s=NOW_S + 60,
    )
    text = encode(token, proof_key(AUTHORITY.key))
    enrollment = Enrollment(token=text, island=asked, request=REQUEST)
    return admit(enrollment, AUTHORITY, job="reef", now=NOW)


@pytest.mark.parametrize(
    ("token_island", "revoked"),
    [
        ("palm", {}),
        ("", {}),
        ("palm", {"palm": NOW_S - 0.001}),
        ("", {"palm": NOW_S - 0.001, "fern": NOW_S - 1}),
        ("palm", {"fern": NOW_S + 30}),
        # As with certificates: the one of palm speaks for palm-0, but is another one.
        ("palm", {"palm-0": NOW_S + 30}),
    ],
)
def test_a_token_made_afterwards_or_of_another_island_is_good(
    token_island: str, revoked: Mapping[str, float]
) -> None:
    refuse_void(admission(token_island), revoked)


@pytest.mark.parametrize(
    ("token_island", "asked", "revoked", "words"),
    [
        ("palm", "palm", {"palm": NOW_S}, "it was made before 'palm' was revoked; ask"),
        ("palm", "", {"palm": NOW_S + 30}, "it was made before 'palm' was revoked; ask"),
        # Whoever was revoked may hold it too, and would come back by another name.
        ("", "palm", {"palm": NOW_S + 30}, "'palm' was revoked and names no island; ask"),
        ("", "fern", {"reed": 1.0, "palm": NOW_S}, "'palm' was revoked and names no island; ask"),
    ],
)
def test_a_token_made_before_is_void(
    token_island: str, asked: str, revoked: Mapping[str, float], words: str
) -> None:
    with pytest.raises(EnrollmentRefused, match=words) as refused:
        refuse_void(admission(token_island, asked), revoked)
    assert refused.value.reason == "revoked"
    assert str(refused.value).endswith("the operator for a new one: atoll token")
