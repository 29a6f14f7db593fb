"""Names, order, what may be deleted, how tensors are split: pure functions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.checkpoint import rules
from atoll.checkpoint.rules import Known


def known(*rounds: int) -> list[Known]:
    return [Known(name=rules.name_of(r, f"{r:08x}"), round=r, created_s=float(r)) for r in rounds]


def names(*rounds: int) -> list[str]:
    return [one.name for one in known(*rounds)]


def test_names() -> None:
    assert rules.name_of(120, "1f3c9a2e") == "round-0000000120-1f3c9a2e"
    assert rules.round_of("round-0000000120-1f3c9a2e") == 120
    for other in (".tmp-round-0000000120-1f3c9a2e", "round-120-1f3c9a2e", "lost+found", "round-"):
        assert rules.round_of(other) is None
    assert rules.is_file_name(rules.file_of("parameters", 3))
    for other in ("../x-00000.safetensors", "a/b-00000.safetensors", "manifest.json", ""):
        assert not rules.is_file_name(other)


def test_due() -> None:
    assert [r for r in range(31) if rules.is_due(r, 10)] == [10, 20, 30]
    assert [r for r in range(3) if rules.is_due(r, 1)] == [1, 2]


def test_the_newest_stay() -> None:
    there = known(10, 40, 20, 30)
    assert rules.expendable(there, keep=2, sure=names(40)[0]) == names(10, 20)
    assert rules.expendable(there, keep=9, sure=names(40)[0]) == []


def test_what_was_just_written_stays_behind_newer_ones_that_may_be_damaged() -> None:
    there = known(50, 60, 70)
    assert rules.expendable(there, keep=1, sure=names(60)[0]) == names(50)
    assert rules.expendable(there, keep=0, sure=names(50)[0]) == names(60)


def test_manifests_that_cannot_be_read_do_not_count_and_go_with_age() -> None:
    there = [replace(one, sound=one.round not in (10, 35, 60)) for one in known(10, 20, 30, 35, 60)]
    there += known(40, 50)
    # 60 and 35 are not older than 30, 40 and 50, which stay.
    assert rules.expendable(there, keep=3, sure=names(50)[0]) == names(10, 20)
    assert rules.expendable(there, keep=2, sure=names(60)[0]) == []


def test_nothing_goes_when_what_was_written_is_not_there() -> None:
    assert rules.expendable(known(10, 20, 30), keep=1, sure="round-0000000040-00000000") == []


def test_a_round_that_was_written_again() -> None:
    first = Known(name=rules.name_of(5, "ffffffff"), round=5, created_s=1.0)
    again = Known(name=rules.name_of(5, "00000000"), round=5, created_s=2.0)
    assert rules.newest_first([first, again]) == [again, first]


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=12, unique=True),
    st.integers(1, 5),
    st.data(),
)
def test_deleting_never_takes_too_much(rounds: list[int], keep: int, data: st.DataObject) -> None:
    there = known(*rounds)
    sure = data.draw(st.sampled_from(there)).name
    gone = rules.expendable(there, keep=keep, sure=sure)
    left = [one for one in rules.newest_first(there) if one.name not in gone]
    assert sure in [one.name for one in left]
    assert len(left) in (min(keep, len(there)), keep + 1)
    assert left[:keep] == rules.newest_first(there)[:keep]


def test_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PART_BYTES", 10)
    sizes = {"a": 4, "b": 6, "c": 1, "d": 99, "e": 0, "f": 10}
    assert rules.parts(sizes) == [["a", "b"], ["c"], ["d"], ["e", "f"]] or rules.parts(sizes) == [
        ["a", "b"],
        ["c"],
        ["d", "e"],
        ["f"],
    ]
    assert rules.parts({}) == []
