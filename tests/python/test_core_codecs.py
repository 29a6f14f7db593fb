"""The codecs as Python calls them: `_core.encode`, `decode`, `decode_add`."""

from __future__ import annotations

import numpy as np
import pytest

from atoll import _core

CODECS = {  # bytes of 256 elements, docs/codecs.md
    "fp32": 1024,
    "bf16": 512,
    "fp16": 512,
    "fp8": 260,
    "int8": 260,
    "int8_minmax": 264,
    "int4": 144,
    "int4_minmax": 160,
    "fp4": 132,
    "two_bit": 68,
}


def encoded(codec: str, x: np.ndarray, **options: object) -> tuple[np.ndarray, tuple[int, int]]:
    target = np.empty(_core.encoded_bytes(codec, len(x)), np.uint8)
    report = _core.encode(codec, x.ctypes.data, len(x), target.ctypes.data, **options)  # type: ignore[arg-type]
    return target, report


def decoded(codec: str, payload: np.ndarray, count: int) -> np.ndarray:
    out = np.empty(count, np.float32)
    _core.decode(codec, payload.ctypes.data, count, out.ctypes.data)
    return out


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_decoded_is_near_and_adds_up(codec: str) -> None:
    x = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    assert _core.encoded_bytes(codec, 256) == CODECS[codec]
    payload, report = encoded(codec, x)
    assert report == (0, 0)
    back = decoded(codec, payload, 1000)
    error = np.linalg.norm(back - x) / np.linalg.norm(x)
    assert error <= {"fp32": 0.0, "fp4": 0.25, "two_bit": 0.4}.get(codec, 0.15)
    acc = x.copy()
    _core.decode_add(codec, payload.ctypes.data, 1000, acc.ctypes.data)
    np.testing.assert_array_equal(acc, x + back)


def test_fp4_is_the_nearest_power_of_two_in_the_log_domain() -> None:
    x = np.random.default_rng(2).standard_normal(256).astype(np.float32)
    x[0] = 7.0  # the block's scale is then 4
    payload, _ = encoded("fp4", x)
    magnitude = np.abs(x.astype(np.float64))
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(magnitude / 4) + 0.5)
    wanted = np.where(magnitude < 4 * 2**-6.5, 0, 4 * 2.0 ** np.clip(exponent, -6, 0))
    np.testing.assert_array_equal(decoded("fp4", payload, 256), np.sign(x) * wanted)


def test_what_is_not_finite_is_counted() -> None:
    x = np.array([1, np.nan, np.inf, 1e30], np.float32)
    assert encoded("fp16", x)[1] == (2, 1)
    assert encoded("fp4", x)[1] == (2, 0)


def test_stochastic_rounding_follows_its_seed() -> None:
    x = np.random.default_rng(3).standard_normal(512).astype(np.float32)
    one, again, other = (
        encoded("int4", x, rounding="stochastic", seed=seed)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_what_makes_no_sense_is_refused() -> None:
    x = np.zeros(8, np.float32)
    with pytest.raises(_core.CoreError, match='codec "fp5" is not known'):
        encoded("fp5", x)
    with pytest.raises(_core.CoreError, match="too long"):
        _core.encoded_bytes("fp4", 1 << 62)
    with pytest.raises(_core.CoreError, match="must not be 0"):
        _core.decode("fp4", 0, 8, x.ctypes.data)
    with pytest.raises(_core.CoreError, match="multiple of 4 bytes"):
        _core.decode_add("fp4", x.ctypes.data, 1, x.ctypes.data + 1)
