"""What an authority does not forget: void certificates, used tokens."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from atoll.errors import ConfigError
from atoll.trust.remembered import FILE, KEPT_AFTER_S, Remembered

NOW_S = 1_000_000.0


def test_the_next_coordinator_knows_it_too(tmp_path: Path) -> None:
    first = Remembered(tmp_path)
    assert (first.revoked, first.used_by("ab")) == ({}, None)
    first.revoke("palm", NOW_S)
    first.revoke("palm", NOW_S - 5)  # an earlier word does not take back a later one
    first.use("ab", "key", expires_s=NOW_S + 60, now_s=NOW_S)
    first.use("ab", "other", expires_s=NOW_S + 60, now_s=NOW_S)
    second = Remembered(tmp_path)
    assert (second.revoked, second.used_by("ab")) == ({"palm": NOW_S}, "key")
    assert os.stat(tmp_path / FILE).st_mode & 0o777 == 0o600


def test_tokens_that_are_long_past_are_forgotten(tmp_path: Path) -> None:
    memory = Remembered(tmp_path)
    memory.use("old", "key", expires_s=NOW_S, now_s=NOW_S)
    memory.use("new", "key", expires_s=NOW_S + 9e9, now_s=NOW_S + KEPT_AFTER_S + 1)
    assert (memory.used_by("old"), memory.used_by("new")) == (None, "key")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"revoked": {"palm": "x"}, "used": {}}'])
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match="whose certificates are void"):
        Remembered(tmp_path)


def test_without_a_place_to_write_it_lasts_as_long_as_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for memory in (Remembered(None), Remembered(tmp_path / "gone")):
        with caplog.at_level(logging.WARNING):
            memory.revoke("palm", NOW_S)
        assert memory.revoked == {"palm": NOW_S}
    assert "a job with another store would take what was revoked" in caplog.text
