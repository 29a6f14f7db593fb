"""The audit of journals finds what must not be, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atoll.data.journal import Entry, audit, line_of, parse, read


def entry(round_: int, begin: int, end: int, data_epoch: int = 0) -> Entry:
    return Entry(
        time_s=0.0,
        round=round_,
        epoch=1,
        data_epoch=data_epoch,
        digest=f"d{round_}",
        used={"aa": ((begin, end),)},
    )


GOOD = [entry(1, 0, 4), entry(2, 4, 10), entry(3, 0, 2, data_epoch=1)]


def test_all_is_well() -> None:
    found = audit({"a": GOOD, "b": GOOD[1:]}, samples=10, passes=1)
    assert found.problems == ()
    assert found.positions == {0: 10, 1: 2}


def test_twice_lost_and_outside() -> None:
    twice = audit({"a": [entry(1, 0, 4), entry(2, 3, 10)]}, samples=10, passes=1)
    lost = audit({"a": [entry(1, 0, 4), entry(2, 5, 10)]}, samples=10, passes=1)
    outside = audit({"a": [entry(1, 0, 14)]}, samples=10, passes=1)
    assert "twice" in twice.problems[0]
    assert lost.problems == ("pass 0: 1 of 10 samples were lost",)
    assert "outside" in outside.problems[0]


def test_a_pass_that_never_began_is_lost() -> None:
    assert audit({"a": GOOD}, samples=10, passes=2).problems == (
        "pass 1: 8 of 10 samples were lost",
    )


def test_islands_that_differ() -> None:
    other = [replace(GOOD[0], digest="x"), *GOOD[1:]]
    assert audit({"a": GOOD, "b": other}, samples=10, passes=1).problems == (
        "round 1: a and b differ",
    )


def test_a_missing_round() -> None:
    assert audit({"a": GOOD[1:]}, samples=10, passes=0).problems == ("round 1: nobody has it",)


def test_files_with_a_torn_end(tmp_path: Path) -> None:
    text = "\n".join(map(line_of, GOOD)) + "\n" + line_of(GOOD[0])[:20]
    (tmp_path / "ledger-island-0.jsonl").write_text(text)
    assert read(tmp_path) == {"island-0": GOOD}
    assert parse(line_of(GOOD[2])) == GOOD[2]
