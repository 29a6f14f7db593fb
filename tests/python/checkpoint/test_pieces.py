"""Whole tensors out of shards' pieces."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.checkpoint.manifest import Piece
from atoll.checkpoint.pieces import assembled

Parts = list[tuple[dict[str, Piece], dict[str, torch.Tensor]]]


def cuts(size: int, count: int) -> list[tuple[int, int]]:
    """As torch.chunk makes them: the last ones may be short, or have nothing."""
    step = -(-size // count) if size else 0
    edges = [min(size, step * n) for n in range(count + 1)]
    return list(itertools.pairwise(edges))


def split(whole: torch.Tensor, counts: tuple[int, ...], name: str = "w") -> Parts:
    boxes = itertools.product(*(cuts(s, n) for s, n in zip(whole.shape, counts, strict=True)))
    parts: Parts = []
    for box in boxes:
        piece = Piece(shape=tuple(whole.shape), offsets=tuple(begin for begin, _ in box))
        local = whole[tuple(slice(begin, end) for begin, end in box)].clone()
        parts.append(({name: piece}, {name: local}))
    return parts


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, ...]]:
    dims = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(0, 7)] * dims))
    counts = draw(st.tuples(*[st.integers(1, 3)] * dims))
    return torch.arange(float(torch.Size(shape).numel())).view(shape), counts


@given(cases(), st.randoms(use_true_random=False))
def test_in_any_order_and_also_twice(
    case: tuple[torch.Tensor, tuple[int, ...]], random: object
) -> None:
    """Twice: where an island has several copies of each shard."""
    whole, counts = case
    parts = split(whole, counts)
    parts += parts[:2]
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert torch.equal(assembled(parts)["w"], whole)


def test_what_is_whole_in_all_parts_is_the_first_ones() -> None:
    parts = split(torch.arange(6.0).view(3, 2), (2, 1))
    for number, (_, tensors) in enumerate(parts):
        tensors["norm"] = torch.full((2,), float(number))
    parts[1][1]["head"] = torch.ones(1)
    found = assembled(parts)
    assert found.keys() == {"w", "norm", "head"}
    assert found["norm"].tolist() == [0.0, 0.0]


def test_what_does_not_make_a_whole_is_refused() -> None:
    whole = torch.arange(6.0).view(3, 2)
    parts = split(whole, (2, 1))
    none = Piece(shape=(3, 2), offsets=None)
    outside = Piece(shape=(3, 2), offsets=(2, 1))
    flat = Piece(shape=(3, 2), offsets=(0,))
    other = Piece(shape=(4, 2), offsets=(2, 0))
    cases: list[tuple[Parts, str]] = [
        (parts[:1], "of w there are 4 of 6 elements"),
        ([parts[0], ({"w": none}, parts[1][1])], "cannot be put together"),
        ([parts[0], ({}, {"w": whole})], "in one part and not in another"),
        ([({}, {"w": whole}), parts[0]], "in one part and not in another"),
        ([parts[0], ({"w": outside}, parts[1][1])], r"a piece of \[1, 2\] does not fit"),
        ([parts[0], ({"w": flat}, parts[1][1])], "does not fit"),
        ([parts[0], ({"w": other}, parts[1][1])], "does not fit"),
        ([parts[0], (parts[1][0], {"w": parts[1][1]["w"].double()})], "does not fit"),
    ]
    for given_, text in cases:
        with pytest.raises(ValueError, match=text):
            assembled(given_)
