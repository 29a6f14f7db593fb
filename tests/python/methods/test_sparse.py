"""SparseLoCo against an independent, chunk by chunk and bit by bit writing in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll import _core
from atoll.errors import MisuseError
from atoll.methods import chunks, sparse, two_bit

SHAPES = [(130, 70), (5000,), (64, 64), (3,), (8, 4, 40), (1, 100)]


def vector(numel: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(seed))


# ---- the dumb twin -------------------------------------------------------------------------------


def dumb_chunks(shape: tuple[int, ...], begin: int) -> list[list[tuple[int, int]]]:
    """Per chunk, (place in it, position in the flat vector) of every element."""
    rows, columns = shape[0], math.prod(shape[1:])
    if len(shape) == 1 or rows < 64 or columns < 64:
        numel = rows * columns
        return [
            [(i - start, begin + i) for i in range(start, min(start + 4096, numel))]
            for start in range(0, numel, 4096)
        ]
    return [
        [
            (r * 64 + c, begin + (top + r) * columns + left + c)
            for r in range(min(64, rows - top))
            for c in range(min(64, columns - left))
        ]
        for top in range(0, rows, 64)
        for left in range(0, columns, 64)
    ]


def dumb_encode(e: np.ndarray, shapes: list[tuple[int, ...]], k: int) -> tuple[bytes, np.ndarray]:
    """(payload, hat)."""
    payload, hat, begin = b"", np.zeros_like(e), 0
    for shape in shapes:
        places, positions = [], []
        for chunk in dumb_chunks(shape, begin):
            count = math.ceil(k * len(chunk) / 4096)
            best = sorted(chunk, key=lambda it: (-abs(e[it[1]]), it[0]))[:count]
            for place, position in sorted(best):
                places.append(place)
                positions.append(position)
        v = e[positions].astype(np.float64)
        std = math.sqrt(((v - v.mean()) ** 2).sum() / max(1, len(v) - 1))
        s = 6 * std / 4 or 1.0
        codes = np.clip(np.round((v - v.mean()) / s + 2), 0, 3).astype(int)
        table = np.array(
            [v[codes == c].mean() if (codes == c).any() else 0 for c in range(4)], np.float32
        )
        hat[positions] = table[codes]
        bits = 0
        for j, place in enumerate(places):
            bits |= place << (12 * j)
        payload += table.tobytes() + bits.to_bytes((12 * len(places) + 7) // 8, "little")
        bits = 0
        for j, code in enumerate(codes):
            bits |= int(code) << (2 * j)
        payload += bits.to_bytes((2 * len(codes) + 7) // 8, "little")
        begin += math.prod(shape)
    return payload, hat


def test_a_payload_is_the_dumb_twins() -> None:
    layout = sparse.SparseLayout(SHAPES)
    e = vector(layout.numel)
    found = sparse.encode(e, layout)
    wanted, hat = dumb_encode(e.numpy(), SHAPES, 64)
    assert len(found) == len(wanted) == layout.payload_bytes
    decoded = sparse.decode(found, layout)
    dense = sparse.decoded_sum([decoded], layout.numel)
    # Bin means are sums in another order; places and codes are exact.
    np.testing.assert_allclose(dense.numpy(), hat, rtol=1e-6)
    part = layout.parts[0]
    assert found[part.begin + 16 : part.end].tobytes() == wanted[part.begin + 16 : part.end]
    assert math.isclose(decoded.norm, float(np.linalg.norm(hat.astype(np.float64))), rel_tol=1e-6)


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.integers(1, 150), min_size=1, max_size=2).map(tuple), min_size=1, max_size=3
    ),
    st.integers(1, 600),
    st.integers(0, 2**31),
)
def test_any_shapes_and_many_ties(shapes: list[tuple[int, ...]], k: int, seed: int) -> None:
    layout = sparse.SparseLayout(shapes, k=k)
    # Few different magnitudes, so that the order of equal ones decides most.
    e = torch.randint(-2, 3, (layout.numel,), generator=torch.Generator().manual_seed(seed)).float()
    decoded = sparse.decode(sparse.encode(e, layout), layout)
    _, hat = dumb_encode(e.numpy(), shapes, k)
    assert len(decoded.positions) == layout.entries
    assert len(set(decoded.positions.tolist())) == layout.entries
    dense = sparse.decoded_sum([decoded], layout.numel).numpy()
    np.testing.assert_allclose(dense, hat, rtol=1e-5, atol=1e-6)


def test_of_equal_magnitudes_the_lowest_place_is_taken() -> None:
    grid = chunks.grids([(4096,)])[0]
    x = torch.zeros(4096)
    assert chunks.top_k(x, grid, 3).tolist() == [0, 1, 2]
    x[100], x[200], x[300] = -1.0, 1.0, 1.0
    assert chunks.top_k(x, grid, 2).tolist() == [100, 200]
    assert chunks.top_k(x, grid, 5).tolist() == [0, 1, 100, 200, 300]


def test_what_lies_beyond_an_edge_is_never_taken() -> None:
    grid = chunks.grids([(66, 65)])[0]  # 64 x 64, 64 x 1, 2 x 64, 2 x 1
    assert chunks.kept(grid, 64) == [64, 1, 2, 1]
    places = chunks.top_k(torch.zeros(66 * 65), grid, 192).tolist()
    assert places == [*range(192), 0, 64, 128, *range(6), 0]


def test_a_matrix_narrower_than_a_tile_is_a_vector() -> None:
    narrow = chunks.grids([(5, 1000)])[0]
    assert (narrow.rows, narrow.columns, narrow.chunks) == (1, 5000, 2)
    assert chunks.top_k(torch.zeros(5000), narrow, 8).tolist() == [*range(8), 0, 1]


# ---- packing -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4095), max_size=99))
def test_places_survive_packing(places: list[int]) -> None:
    packed = two_bit.pack_places(np.array(places, dtype=np.int64))
    assert len(packed) == two_bit.places_bytes(len(places)) == math.ceil(1.5 * len(places))
    assert two_bit.unpack_places(packed, len(places)).tolist() == places


def test_two_places_in_three_bytes() -> None:
    assert two_bit.pack_places(np.array([0xABC, 0x123])).tolist() == [0xBC, 0x3A, 0x12]
    assert two_bit.pack_places(np.array([0xABC])).tolist() == [0xBC, 0x0A]


@given(st.lists(st.integers(0, 3), max_size=99))
def test_codes_survive_packing(codes: list[int]) -> None:
    packed = two_bit.pack_codes(np.array(codes, dtype=np.uint8))
    assert len(packed) == math.ceil(len(codes) / 4)
    assert two_bit.unpack_codes(packed, len(codes)).tolist() == codes


def test_four_codes_in_a_byte() -> None:
    assert two_bit.pack_codes(np.array([1, 2, 3, 0], np.uint8)).tolist() == [0b00_11_10_01]


def test_equal_values_have_one_code_and_lose_nothing() -> None:
    codes, table = two_bit.quantized(torch.full((7,), 0.3))
    assert table[codes.long()].tolist() == torch.full((7,), 0.3).tolist()
    codes, table = two_bit.quantized(torch.tensor([-5.0]))
    assert table[codes.long()].tolist() == [-5.0]


# ---- the papers' numbers -------------------------------------------------------------------------


def test_the_payload_is_146_times_smaller() -> None:
    layout = sparse.SparseLayout([(1024, 2048)])
    bits = 8 * (layout.payload_bytes - 16) / layout.numel
    assert bits == 0.21875
    assert round(32 / bits, 2) == 146.29
    assert 32 * layout.numel / (8 * layout.payload_bytes) > 146.2
    assert layout.entries / layout.numel == 0.015625


def test_places_cost_twelve_bits_where_seven_and_a_third_are_the_least() -> None:
    assert round(sparse.place_entropy_bits(), 2) == 7.36


def test_an_int8_ring_is_cheaper_from_74_members_on() -> None:
    edge = sparse.break_even_members()
    assert math.floor(edge) == 73
    for members, cheaper in ((73, True), (74, False)):
        gathered = (members - 1) * 0.21875
        assert (gathered < 2 * (members - 1) / members * 8) is cheaper


# ---- the step ------------------------------------------------------------------------------------


def test_what_is_not_sent_stays_in_the_residual() -> None:
    layout = sparse.SparseLayout(SHAPES)
    e, delta = vector(layout.numel, 1), vector(layout.numel, 2)
    now = sparse.accumulated(e, delta, beta=0.95)
    np.testing.assert_allclose(now.numpy(), 0.95 * e.numpy() + delta.numpy(), rtol=1e-5, atol=1e-6)
    payload = sparse.encode(now, layout)
    left = sparse.residual(now, sparse.decode(payload, layout))
    hat = sparse.decoded_sum([sparse.decode(payload, layout)], layout.numel)
    np.testing.assert_array_equal(left.numpy(), (now - hat).numpy())
    assert float(left.norm()) < float(now.norm())


def members_of(count: int, layout: sparse.SparseLayout) -> list[sparse.Decoded]:
    return [
        sparse.decode(sparse.encode((1 + r) * vector(layout.numel, r), layout), layout)
        for r in range(count)
    ]


def test_sum_and_step_are_numpys_fp32_to_the_bit() -> None:
    layout = sparse.SparseLayout(SHAPES, k=500)
    decoded = members_of(5, layout)
    theta = vector(layout.numel, 99)
    factors = sparse.median_norm_factors([one.norm for one in decoded])
    for scaled in (None, factors):
        total = sparse.decoded_sum(decoded, layout.numel, factors=scaled)
        wanted = np.zeros(layout.numel, np.float32)
        for one, factor in zip(decoded, scaled or [1.0] * 5, strict=True):
            dense = np.zeros(layout.numel, np.float32)
            dense[one.positions.numpy()] = np.float32(factor) * one.values.numpy()
            wanted = wanted + dense
        np.testing.assert_array_equal(total.numpy(), wanted)
        found = sparse.sparseloco_step(theta, total, alpha=0.9, members=5)
        step = np.float32(0.9) * (wanted * np.float32(1 / 5))
        np.testing.assert_array_equal(found.numpy(), theta.numpy() - step)


def test_members_that_are_too_loud_are_scaled_to_the_median() -> None:
    assert sparse.median_norm_factors([1.0, 2.0, 8.0]) == (1.0, 1.0, 0.25)
    assert sparse.median_norm_factors([0.0, 0.0, 3.0]) == (1.0, 1.0, 0.0)
    layout = sparse.SparseLayout(SHAPES)
    decoded = members_of(3, layout)
    factors = sparse.median_norm_factors([one.norm for one in decoded])
    assert factors[:2] == (1.0, 1.0)
    assert math.isclose(factors[2] * decoded[2].norm, decoded[1].norm)


def test_everything_kept_and_alpha_one_is_local_sgd_but_for_the_quantizer() -> None:
    """Without top-k (each chunk's k is all of it) the residual is what two bits lose, no more."""
    layout = sparse.SparseLayout([(16,)], k=600)
    theta = torch.zeros(16)
    delta = torch.tensor([1.0, -1.0] * 8)
    decoded = sparse.decode(sparse.encode(delta, layout), layout)
    assert layout.entries == 3  # ceil(600 * 16 / 4096)
    total = sparse.decoded_sum([decoded, decoded], 16)
    moved = sparse.sparseloco_step(theta, total, alpha=1.0, members=2)
    assert moved.tolist() == [-1.0, 1.0, -1.0] + [0.0] * 13


# ---- what is refused -----------------------------------------------------------------------------


def test_a_k_that_makes_no_sense_is_refused_with_the_bound() -> None:
    with pytest.raises(MisuseError, match=r"k must be in \[1, 4096\].*not 4097"):
        sparse.SparseLayout([(8,)], k=4097)
    with pytest.raises(MisuseError, match=r"k must be in \[1, 4096\].*not 0"):
        sparse.SparseLayout([(8,)], k=0)
    with pytest.raises(MisuseError, match=r"k = 622 of 4096 costs 2.13 bits .* take k <= 621"):
        sparse.SparseLayout([(8,)], k=622)
    sparse.SparseLayout([(8,)], k=621)


def test_payloads_that_are_wrong_are_refused() -> None:
    layout = sparse.SparseLayout([(70, 70), (100,)])
    good = sparse.encode(vector(layout.numel), layout)
    sparse.decode(good, layout)
    with pytest.raises(MisuseError, match="bytes, this model's have"):
        sparse.decode(good[:-1], layout)
    infinite = good.copy()
    infinite[:4] = np.array([np.inf], "<f4").view(np.uint8)
    with pytest.raises(MisuseError, match="not finite"):
        sparse.decode(infinite, layout)
    twice = good.copy()
    twice[16:19] = two_bit.pack_places(np.array([5, 5]))
    with pytest.raises(MisuseError, match="or twice"):
        sparse.decode(twice, layout)
    beyond = good.copy()
    second = layout.parts[1]
    beyond[second.begin + 16 : second.begin + 19] = two_bit.pack_places(np.array([3, 100]))
    with pytest.raises(MisuseError, match="does not have"):
        sparse.decode(beyond, layout)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_bytes_are_refused_or_decode_inside(data: st.DataObject) -> None:
    layout = sparse.SparseLayout([(9, 5), (30,)], k=600)
    raw = data.draw(st.binary(min_size=layout.payload_bytes, max_size=layout.payload_bytes))
    try:
        decoded = sparse.decode(np.frombuffer(raw, dtype=np.uint8), layout)
    except MisuseError:
        return
    assert bool(((decoded.positions >= 0) & (decoded.positions < layout.numel)).all())
    assert bool(torch.isfinite(decoded.values).all())


def test_the_kernel_adds_nothing_outside() -> None:
    acc = torch.zeros(4)
    at, values = torch.tensor([1, 4]), torch.ones(2)
    with pytest.raises(_core.CoreError, match=r"not in \[0, 4\); nothing was added"):
        _core.scatter_add(acc.data_ptr(), 4, at.data_ptr(), values.data_ptr(), 2, 1.0)
    assert acc.tolist() == [0, 0, 0, 0]
