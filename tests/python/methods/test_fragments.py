"""Streaming DiLoCo's schedule against a table made step by step from the paper's conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import MisuseError
from atoll.methods.fragments import (
    applies,
    block_of,
    check_schedule,
    due,
    fragments,
    mixed,
    offsets,
    starts,
)

NAMES = [
    "embedding.weight",
    *(f"blocks.{index}.{part}.weight" for index in range(6) for part in ("attention", "mlp.0")),
    "norm.weight",
]


def blocks_in(part: tuple[str, ...]) -> list[int]:
    found = [block_of(name) for name in part]
    return sorted({block[1] for block in found if block is not None})


def test_strided_fragments_take_every_pth_block() -> None:
    parts = fragments(NAMES, 4)
    assert [blocks_in(part) for part in parts] == [[0, 4], [1, 5], [2], [3], []]
    assert parts[-1] == ("embedding.weight", "norm.weight")
    assert sorted(name for part in parts for name in part) == sorted(NAMES)


def test_sequential_fragments_take_neighbouring_blocks() -> None:
    parts = fragments(NAMES, 4, order="sequential")
    assert [blocks_in(part) for part in parts] == [[0, 1], [2, 3], [4], [5], []]


def test_a_model_of_blocks_alone_has_no_further_fragment() -> None:
    assert fragments(["0.weight", "2.weight"], 2) == (("0.weight",), ("2.weight",))


def test_lists_of_blocks_are_told_apart() -> None:
    names = ["encoder.0.w", "decoder.0.w", "decoder.1.w"]
    assert fragments(names, 3) == (("encoder.0.w",), ("decoder.0.w",), ("decoder.1.w",))


@given(st.integers(1, 40), st.data())
def test_every_parameter_is_in_one_fragment_and_sizes_differ_by_one_block(
    blocks: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, blocks))
    names = [f"h.{index}.w" for index in range(blocks)]
    for order in ("strided", "sequential"):
        parts = fragments(names, count, order=order)  # type: ignore[arg-type]
        assert sorted(name for part in parts for name in part) == sorted(names)
        assert len(parts) == count
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_makes_no_sense_is_refused_with_the_bound() -> None:
    with pytest.raises(MisuseError, match=r"7 fragments .* need 7 blocks, the model has 6; .* 6"):
        fragments(NAMES, 7)
    with pytest.raises(MisuseError, match="at least 1, not 0"):
        fragments(NAMES, 0)
    with pytest.raises(MisuseError, match='"strided" or "sequential", not "random"'):
        fragments(NAMES, 2, order="random")  # type: ignore[arg-type]
    with pytest.raises(MisuseError, match=r"overlap must be in \[0, 30\), the period, not 30"):
        check_schedule(4, period=30, overlap=30)
    with pytest.raises(MisuseError, match="sync_every must be at least 4"):
        check_schedule(4, period=3, overlap=0)
    check_schedule(4, period=4, overlap=3)


def test_the_table_of_a_small_schedule() -> None:
    """H 6, three fragments at offsets 0, 2 and 4, tau 1: what starts and is applied, by step."""
    assert offsets(3, 6) == (0, 2, 4)
    table = {
        step: found
        for step in range(1, 20)
        if (found := due(step, offsets(3, 6), period=6, overlap=1)) != ((), ())
    }
    assert table == {
        6: ((0,), ()),
        7: ((), (0,)),
        8: ((1,), ()),
        9: ((), (1,)),
        10: ((2,), ()),
        11: ((), (2,)),
        12: ((0,), ()),
        13: ((), (0,)),
        14: ((1,), ()),
        15: ((), (1,)),
        16: ((2,), ()),
        17: ((), (2,)),
        18: ((0,), ()),
        19: ((), (0,)),
    }


@given(st.integers(1, 50), st.integers(1, 12), st.data())
def test_exchanges_follow_one_another(period: int, count: int, data: st.DataObject) -> None:
    count = min(count, period)
    overlap = data.draw(st.integers(0, period - 1))
    under_way: dict[int, int] = {}
    began = dict.fromkeys(range(count), 0)
    at = offsets(count, period)
    assert len(set(at)) == count
    for step in range(1, 5 * period):
        started, applied = due(step, at, period=period, overlap=overlap)
        for fragment in started:
            assert fragment not in under_way
            under_way[fragment] = step
            began[fragment] += 1
        for fragment in applied:
            assert step - under_way.pop(fragment) == overlap
    # Each fragment once a period, the first time in its second one.
    for fragment, times in began.items():
        assert times == sum((t - at[fragment]) % period == 0 for t in range(period, 5 * period))


def test_overlap_zero_starts_and_applies_at_once() -> None:
    assert starts(30, offset=0, period=30)
    assert applies(30, offset=0, period=30, overlap=0)
    assert not starts(10, offset=10, period=30)
    assert not applies(0, offset=0, period=30, overlap=0)


def test_mixing_against_numpy() -> None:
    generator = torch.Generator().manual_seed(1)
    local, new = (torch.randn(257, generator=generator) for _ in range(2))
    wanted = 0.25 * local.double().numpy() + 0.75 * new.double().numpy()
    np.testing.assert_allclose(mixed(local, new, alpha=0.25).numpy(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed(local, new, alpha=1.0), local)
    torch.testing.assert_close(mixed(local, new, alpha=0.0), new)
