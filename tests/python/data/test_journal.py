"""The audit of journals finds what must not be, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atoll.data.journal import Entry, Restart, audit, line_of, parse, read


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


def test_rounds_that_a_restart_made_void(tmp_path: Path) -> None:
    """Rounds 3 and 4 were done twice; those of before the restart do not count."""
    first, second = tmp_path / "first", tmp_path / "second"
    before = [entry(1, 0, 2), entry(2, 2, 4), entry(3, 4, 6), entry(4, 6, 8)]
    after = [replace(entry(3, 4, 7), time_s=9.0, digest="x"), replace(entry(4, 7, 9), time_s=9.5)]
    for folder, lines in (
        (first, [*before, Restart(time_s=-1.0, restored=0, epoch=1)]),
        (second, [Restart(time_s=8.0, restored=2, epoch=7), *after]),
    ):
        folder.mkdir()
        text = "".join(line_of(line) + "\n" for line in lines)
        (folder / "ledger-island-0.jsonl").write_text(text)
    found = read(first, second)
    assert found == {"island-0": before[:2], "island-0 (1)": after}
    assert audit(found, samples=9, passes=1).problems == ()
    assert audit(read(first), samples=8, passes=1).problems == ()
