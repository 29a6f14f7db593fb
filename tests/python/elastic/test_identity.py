"""Names of work: vshards, layouts, keys."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.elastic import layout as layouts
from atoll.elastic.identity import ALIGNMENT, Spine, key, vshard_cuts
from atoll.elastic.layout import Layout, Stage, decode, problems
from atoll.errors import MisuseError

SPINE = Spine(seed=1, micro_batches=3, layer_sizes=(128, 256), vshards=2)
LAYOUT = Layout(
    epoch=4,
    stages=(
        Stage(first=0, last=1, workers=("a", "b"), micro_batches=((0, 1), (2,))),
        Stage(first=1, last=2, workers=("c",), micro_batches=((0, 1, 2),)),
    ),
    owners=(("a", "b"), ("c", "c")),
    backups=(("b", "a"), ("a", None)),
)


@given(st.integers(0, 200), st.integers(1, 40))
def test_vshards_are_cut_at_multiples_of_64_and_evenly(blocks: int, vshards: int) -> None:
    cuts = vshard_cuts(blocks * ALIGNMENT, vshards)
    assert (len(cuts), cuts[0], cuts[-1]) == (vshards + 1, 0, blocks * ALIGNMENT)
    assert all(cut % ALIGNMENT == 0 for cut in cuts)
    sizes = [end - begin for begin, end in itertools.pairwise(cuts)]
    assert max(sizes) - min(sizes) <= ALIGNMENT
    assert min(sizes) >= 0


@pytest.mark.parametrize(
    "change",
    [{"micro_batches": 0}, {"vshards": 0}, {"layer_sizes": ()}, {"layer_sizes": (100,)}],
)
def test_an_impossible_spine_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MisuseError):
        replace(SPINE, **change)


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"micro_batches": 4}, {"layer_sizes": (128, 320)}, {"vshards": 3}]
)
def test_the_spines_digest_tells_runs_apart(change: dict[str, object]) -> None:
    assert replace(SPINE).digest() == SPINE.digest()
    assert replace(SPINE, **change).digest() != SPINE.digest()


def test_keys_differ_in_every_number_and_are_what_they_were() -> None:
    work = (7, 3, 1, 2, 0)
    others = {key(*(n + (i == j) for j, n in enumerate(work))) for i in range(len(work))}
    assert len(others | {key(*work)}) == len(work) + 1
    assert key(1, 2) != key(1, 2, 0)
    # A changed key would be a changed run: this one is part of the format.
    assert key(*work).hex() == "e1cc77786ee3fa2a2722ed1f4db949a5"


def test_a_layout_is_data() -> None:
    assert problems(LAYOUT, SPINE) == ()
    assert decode(LAYOUT.encode()) == LAYOUT
    assert replace(LAYOUT, epoch=5).digest() != LAYOUT.digest()
    assert LAYOUT.workers == ("a", "b", "c")
    assert LAYOUT.stage_of_layer(1) == LAYOUT.stage_index("c") == 1
    assert LAYOUT.micro_batches_of("b") == (2,)
    assert LAYOUT.stages[0].worker_of(1) == "a"
    assert (LAYOUT.owner((0, 1)), LAYOUT.backup((1, 1))) == ("b", None)


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", LAYOUT.encode() + b" "])
def test_other_texts_are_no_layouts(text: bytes) -> None:
    with pytest.raises(MisuseError):
        decode(text)


def stage(index: int, **change: object) -> Layout:
    stages = list(LAYOUT.stages)
    stages[index] = replace(stages[index], **change)
    return replace(LAYOUT, stages=tuple(stages))


@pytest.mark.parametrize(
    ("layout", "word"),
    [
        (stage(1, first=0), "layers"),
        (stage(1, workers=("a",)), "two places"),
        (stage(0, workers=("a", "b", "d")), "shares"),
        (stage(0, micro_batches=((0, 1), (1, 2))), "once"),
        (stage(0, micro_batches=((0, 1), ())), "once"),
        (replace(LAYOUT, owners=(("a", "b"),)), "rows"),
        (replace(LAYOUT, owners=(("a", "c"), ("c", "c"))), "not in its stage"),
        (replace(LAYOUT, backups=(("b", "a"), ("x", None))), "no part"),
        (replace(LAYOUT, backups=(("a", "a"), ("a", None))), "owner and backup"),
    ],
)
def test_what_is_wrong_with_a_layout_is_said(layout: layouts.Layout, word: str) -> None:
    assert any(word in problem for problem in problems(layout, SPINE))


@pytest.mark.parametrize(
    "call",
    [
        lambda: LAYOUT.stage_index("x"),
        lambda: LAYOUT.stage_of_layer(2),
        lambda: LAYOUT.stages[0].worker_of(3),
    ],
)
def test_what_is_not_there_is_an_error(call: object) -> None:
    with pytest.raises(MisuseError):
        call()  # type: ignore[operator]
