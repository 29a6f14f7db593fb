"""Which parts belong together, which checkpoint an island of several processes begins from, and
which parts may go: pure functions."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.checkpoint import rules, shards
from atoll.checkpoint.rules import Known
from atoll.checkpoint.shards import Choice, Listing, choose, expendable, torn, versions


def part(round_: int, line: str = "a", epoch: int = 1, own: int = 0, at_s: float = 0.0) -> Known:
    name = rules.name_of(round_, shards.token_of(line, epoch, f"{own:08x}"))
    return Known(name=name, round=round_, created_s=at_s or float(round_))


def listing(*parts: Known, held: int = 0, whole: int = 0) -> Listing:
    return Listing(held=held, whole=whole, parts=parts)


def rounds(choice: Choice) -> list[int]:
    assert choice.problem == ""
    return [version.round for version in choice.versions]


def test_names() -> None:
    assert shards.folder_of(0, 2) == "shard-0-of-2"
    assert shards.shards_of("shard-11-of-16") == 16
    for other in ("shard-0-of-2x", "round-0000000003-1f3c9a2e", "part-00000", ".shard-0-of-2"):
        assert shards.shards_of(other) is None
    one, other = part(120, own=1), part(120, own=2)
    assert rules.round_of(one.name) == 120
    assert shards.stamp_of(one.name) == shards.stamp_of(other.name) != ""
    assert one.name != other.name
    assert shards.stamp_of("round-0000000120-1f3c9a2e") == ""
    stamps = {shards.stamp_of(part(120, line, epoch).name) for line, epoch in product("ab", (1, 2))}
    assert len(stamps) == 4


def test_the_newest_that_all_have() -> None:
    full = [part(10), part(20), part(30)]
    assert rounds(choose([listing(*full), listing(*full)])) == [30, 20, 10]
    assert rounds(choose([listing(*full), listing(*full[:2])])) == [20, 10]  # killed between
    assert rounds(choose([listing(*full[:1]), listing(*full)])) == [10]
    # One has kept what the other has not, in the middle.
    assert rounds(choose([listing(part(10), part(30)), listing(*full)])) == [30, 10]
    three = [listing(part(10), part(20)), listing(part(20), part(30)), listing(*full)]
    assert rounds(choose(three)) == [20]
    assert torn([one.parts for one in three]) == [(30, [0]), (10, [1])]


def test_parts_of_two_lines_or_two_views_never_meet() -> None:
    """A job that is restarted comes to the same rounds once more."""
    old, new = part(20, "a"), part(20, "b")
    both = [part(10, "a")]
    assert rounds(choose([listing(*both, old), listing(*both, new)])) == [10]
    found = choose([listing(*both, old, new), listing(*both, new)]).versions
    assert found[0].names == (new.name, new.name)
    # One shard has made the round with an island that was lost, the other without.
    assert rounds(choose([listing(*both, part(20)), listing(*both, part(20, epoch=2))])) == [10]


def test_of_a_round_that_was_made_twice_the_later_one() -> None:
    old, new = part(20, "a", at_s=5.0), part(20, "b", at_s=9.0)
    found = choose([listing(old, new), listing(new, old)]).versions
    assert [version.names[0] for version in found] == [new.name, old.name]
    # Two writers took the same turn: the one whose manifest can be read, then the later one.
    late = replace(part(20, own=7), created_s=99.0)
    assert choose([listing(part(20), late), listing(part(20))]).versions[0].names[0] == late.name
    broken = replace(late, sound=False)
    names = choose([listing(part(20), broken), listing(part(20))]).versions[0].names
    assert names[0] == part(20).name


def test_a_part_whose_manifest_is_damaged_is_still_a_part() -> None:
    """It is tried, found damaged, and told of: not passed over in silence."""
    broken = replace(part(20), sound=False, created_s=0.0)
    assert rounds(choose([listing(part(10), broken), listing(part(10), part(20))])) == [20, 10]


def test_nothing_is_there() -> None:
    assert choose([listing(), listing()]) == Choice()
    assert rounds(choose([listing(held=7), listing(held=7)])) == []


def test_a_job_that_was_ended_before_its_first_one_was_whole_begins_anew() -> None:
    assert choose([listing(part(10)), listing()]) == Choice()
    assert choose([listing(part(10), part(20)), listing(part(30))]) == Choice()


def test_a_folder_that_is_lost_is_no_beginning() -> None:
    found = choose([listing(part(20), part(30), whole=20), listing(), listing(part(30))])
    assert found.versions == ()
    assert "of none of 2 checkpoints the parts of all shards are there" in found.problem
    assert "round 30, shard 1 has none" in found.problem
    found = choose([listing(part(30), whole=20), listing(), listing()])
    assert "shards 1, 2 have none" in found.problem


def test_what_the_shards_hold_is_kept_if_it_is_newer() -> None:
    full = [part(10), part(20)]
    assert rounds(choose([listing(*full, held=20)] * 2)) == []
    assert rounds(choose([listing(*full, held=15)] * 2)) == [20]
    assert choose([listing(*full, held=15)] * 2).may_keep
    assert not choose([listing(*full)] * 2).may_keep


def test_shards_that_hold_different_rounds_cannot_keep_them() -> None:
    full = [part(10), part(20)]
    found = choose([listing(*full, held=25), listing(*full)])
    assert rounds(found) == [20, 10]
    assert not found.may_keep
    assert "different rounds (25, 0)" in choose([listing(held=25), listing()]).problem


made = st.tuples(st.integers(1, 5), st.sampled_from("ab"), st.integers(1, 2))


@given(st.lists(st.sets(made), min_size=1, max_size=4))
def test_versions_are_what_all_have(shown: list[set[tuple[int, str, int]]]) -> None:
    parts = [[part(*one, own=shard) for one in sorted(own)] for shard, own in enumerate(shown)]
    found = versions(parts)
    common = set.intersection(*shown)
    assert {names for v in found for names in [v.names]} == {
        tuple(part(*one, own=shard).name for shard in range(len(shown))) for one in common
    }
    assert [v.round for v in found] == sorted((r for r, _, _ in common), reverse=True)
    missing = set.union(*shown) - common
    assert sorted(r for r, _ in torn(parts)) == sorted(r for r, _, _ in missing)


def names(*parts: Known) -> list[str]:
    return [one.name for one in parts]


def test_what_a_common_one_needs_stays() -> None:
    five = [part(r) for r in (10, 20, 30, 40, 50)]
    line = names(*five)
    # The other shard is late: 40 and 50 are not whole, and 30 and 20 are the newest two.
    gone = expendable([line, names(*five[:3])], shard=0, keep=2, sure=five[4].name, line=line)
    assert gone == names(five[0])
    # Both have written 50, which does not count for whoever has just written it.
    gone = expendable([line, line], shard=1, keep=2, sure=five[4].name, line=line)
    assert gone == names(five[0], five[1])
    # The other has no more than the first: nothing newer than that goes, however much it is.
    gone = expendable([line, names(five[0])], shard=0, keep=2, sure=five[4].name, line=line)
    assert gone == []


def test_torn_ones_go_with_age() -> None:
    old, mine = part(15, "z"), [part(10), part(20), part(30)]
    there = names(old, *mine)
    gone = expendable([there, names(*mine)], shard=0, keep=1, sure=mine[2].name, line=there)
    assert gone == names(mine[0], old)


def test_after_a_step_back_the_new_line_has_one_before_the_old_goes() -> None:
    """20 and 30 of the old line are damaged, which their names do not say: the job has begun anew
    from 10."""
    old = [part(10), part(20), part(30)]
    first, second = part(15, "b"), part(20, "b", at_s=50.0)
    there = names(*old, first)
    assert expendable([there] * 2, shard=0, keep=2, sure=first.name, line=[first.name]) == []
    there = names(*old, first, second)
    line = names(first, second)
    gone = expendable([there] * 2, shard=0, keep=2, sure=second.name, line=line)
    assert gone == names(old[0])  # and not 15, which is sure to be good


@given(
    st.lists(st.sets(made), min_size=2, max_size=3),
    made,
    st.integers(1, 3),
)
def test_the_newest_common_ones_are_never_touched(
    shown: list[set[tuple[int, str, int]]], written: tuple[int, str, int], keep: int
) -> None:
    shown[0].add(written)
    parts = [[part(*one) for one in sorted(own)] for own in shown]
    sure = part(*written).name
    line = [part(*one).name for one in shown[0] if one[1] == written[1]]
    gone = expendable([names(*own) for own in parts], shard=0, keep=keep, sure=sure, line=line)
    assert sure not in gone
    before = versions(parts)
    left = [[one for one in parts[0] if one.name not in gone], *parts[1:]]
    after = versions(left)
    assert after[:keep] == before[:keep]
    mine = [version for version in before if version.names[0] in line]
    assert mine[:1] == [version for version in after if version.names[0] in line][:1]


@pytest.mark.parametrize(("missed", "rounds_"), [(0, 10), (1, 20), (2, 40), (3, 40), (4, 80)])
def test_who_is_slow_writes_on_a_coarser_grid(missed: int, rounds_: int) -> None:
    assert shards.stride(10, missed) == rounds_


@given(
    st.lists(st.integers(1, 35), min_size=2, max_size=3), st.lists(st.integers(0, 9), min_size=3)
)
def test_shards_that_are_slow_differently_meet(slow: list[int], starts: list[int]) -> None:
    """Each writes for so many rounds, and begins at a moment of its own."""
    every, last = 10, 2000
    wrote: list[set[int]] = []
    for length, start in zip(slow, starts, strict=False):
        done, busy, missed = set(), 0, 0
        for round_ in range(every * (1 + start), last, every):
            if round_ < busy:
                missed += 1
            elif round_ % shards.stride(every, missed) == 0:
                done.add(round_)
                busy, missed = round_ + length, 0
        wrote.append(done)
    common = sorted(set.intersection(*wrote))
    assert common
    assert max(b - a for a, b in zip([200, *common], [*common, last], strict=True)) <= 120
