"""Tokens are good once made by the job's authority, for its job, for a while; else refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import ConfigError
from atoll.trust import tokens

KEY, OTHER = bytes(32), bytes([1]) * 32
NOW_S = 1_000_000.0
TOKEN = tokens.Token(
    id="ab" * 16,
    job="reef",
    island="",
    enroll="coral.example:7001,[::1]:7001",
    authority="cd" * 32,
    made_s=NOW_S - 60,
    expires_s=NOW_S + 60,
)


def test_a_token_says_what_was_put_into_it() -> None:
    text = tokens.encode(TOKEN, KEY)
    assert tokens.verify(text, KEY, job="reef", now_s=NOW_S) == TOKEN
    assert tokens.read(f"  {text}\n") == TOKEN
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize(
    ("token", "key", "job", "now_s", "words"),
    [
        (TOKEN, OTHER, "reef", NOW_S, "not made by this job's authority"),
        (TOKEN, KEY, "atoll", NOW_S, "is for job 'reef', this is job 'atoll'"),
        (TOKEN, KEY, "reef", NOW_S + 60, "expired 0 s ago"),
        (replace(TOKEN, purpose="drain"), KEY, "reef", NOW_S, "another purpose"),
    ],
)
def test_what_is_wrong_is_said(
    token: tokens.Token, key: bytes, job: str, now_s: float, words: str
) -> None:
    with pytest.raises(tokens.TokenRefused, match=words):
        tokens.verify(tokens.encode(token, key), KEY, job=job, now_s=now_s)


def test_a_token_of_another_version_says_so() -> None:
    _, _, rest = tokens.encode(TOKEN, KEY).partition(".")
    with pytest.raises(tokens.TokenRefused, match=r"begins with 'atoll1\.' and not"):
        tokens.read(f"atoll1.{rest}")


def test_nobody_prolongs_a_token() -> None:
    prefix, payload, proof = tokens.encode(TOKEN, KEY).split(".")
    values = json.loads(base64.urlsafe_b64decode(payload + "=="))
    values["expires_s"] += 1000
    longer = base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()
    with pytest.raises(tokens.TokenRefused, match="authority"):
        tokens.verify(f"{prefix}.{longer}.{proof}", KEY, job="reef", now_s=NOW_S)


@given(st.text() | st.binary().map(lambda data: f"atoll2.{base64.b64encode(data).decode()}.AAAA"))
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(tokens.TokenRefused):
        tokens.verify(text, KEY, job="reef", now_s=NOW_S)


@given(st.dictionaries(st.sampled_from(tokens.Token.__slots__), st.text(max_size=20) | st.floats()))
def test_a_payload_of_other_things_is_refused(values: dict[str, object]) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()
    with pytest.raises(tokens.TokenRefused, match="damaged"):
        tokens.read(f"atoll2.{payload}.AAAA")


def test_lives_are_bounded() -> None:
    assert tokens.check_life(600) == 600
    for seconds in (0.0, -1.0, 8 * 86400.0, float("nan")):
        with pytest.raises(ConfigError):
            tokens.check_life(seconds)
