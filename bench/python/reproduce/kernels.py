"""The core's kernels on tensors. Where the core is not built, NumPy does the same, to the bit.

`CORE` says which: "atoll._core" or "numpy". The stand-in exists so that the evidence runs on a
machine that has only Python, torch and NumPy; tests/python/examples/test_reproduce.py holds the two
against each other.
"""

from __future__ import annotations

import ctypes
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

try:
    import atoll
except ImportError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "runtime"))
    import atoll


def _at(address: int, count: int, kind: type = ctypes.c_float) -> np.ndarray:
    return np.ctypeslib.as_array((kind * count).from_address(address))


def numpy_nesterov(
    theta_out: int,
    momentum_out: int,
    theta: int,
    momentum: int,
    total: int,
    count: int,
    inverse_weight: float,
    eta: float,
    mu: float,
) -> None:
    delta = _at(total, count) * np.float32(inverse_weight)
    velocity = np.float32(mu) * _at(momentum, count) + delta
    _at(theta_out, count)[:] = _at(theta, count) - np.float32(eta) * (
        delta + np.float32(mu) * velocity
    )
    _at(momentum_out, count)[:] = velocity


def numpy_descend(
    theta_out: int, theta: int, total: int, count: int, inverse_weight: float, alpha: float
) -> None:
    mean = _at(total, count) * np.float32(inverse_weight)
    _at(theta_out, count)[:] = _at(theta, count) - np.float32(alpha) * mean


def numpy_scatter_add(
    acc: int, count: int, positions: int, values: int, entries: int, factor: float
) -> None:
    added = np.float32(factor) * _at(values, entries)
    np.add.at(_at(acc, count), _at(positions, entries, ctypes.c_int64), added)


def numpy_fp4(x: np.ndarray) -> np.ndarray:
    """What fp4 makes of finite numbers, as docs/codecs.md says: by blocks of 256."""
    blocks = np.zeros(-(-len(x) // 256) * 256, np.float32)
    blocks[: len(x)] = x
    rows = blocks.reshape(-1, 256)
    amax = np.abs(rows).max(axis=1, keepdims=True)
    bounded = np.clip(amax, np.float32(2.0**-118), np.float32(float.fromhex("0x1.ffffp127")))
    mantissa, top = np.frexp(np.abs(rows))  # |x| = mantissa * 2^top, mantissa in [0.5, 1)
    scale = np.frexp(bounded)[1] - 1  # floor(log2)
    # To the next power of two from sqrt(2) on: the square of a float is exact in double.
    exponent = top - 1 + (np.square(mantissa, dtype=np.float64) > 0.5) - scale
    magnitude = np.ldexp(np.float32(1), np.clip(exponent, -6, 0) + scale)
    magnitude = np.where((exponent < -6) | (rows == 0), np.float32(0), magnitude)
    signed = np.where(rows < 0, -magnitude, magnitude).astype(np.float32) + np.float32(0)
    return signed.reshape(-1)[: len(x)]


def stand_in() -> types.ModuleType:
    """A module with those functions of atoll._core that the methods' steps call."""
    module = types.ModuleType("atoll._core")
    module.nesterov_step = numpy_nesterov  # type: ignore[attr-defined]
    module.descend = numpy_descend  # type: ignore[attr-defined]
    module.scatter_add = numpy_scatter_add  # type: ignore[attr-defined]
    return module


try:
    from atoll import _core

    CORE = "atoll._core"
except ImportError:
    _core = stand_in()  # type: ignore[assignment]
    sys.modules["atoll._core"] = _core
    atoll._core = _core
    CORE = "numpy"


def encoded_bytes(codec: str, count: int) -> int:
    if CORE == "atoll._core":
        return _core.encoded_bytes(codec, count)
    if codec == "fp32":
        return 4 * count
    whole, rest = divmod(count, 32)  # groups of 16 bytes; a header of 4 for 256 elements
    return 4 * -(-count // 256) + 16 * whole + min(rest, 16)


def through(codec: str, x: Tensor) -> Tensor:
    """What arrives of x, fp32 [n], when it travels through a codec."""
    if codec == "fp32":
        return x
    if CORE == "numpy":
        if codec != "fp4":
            raise SystemExit(f"codec {codec} needs atoll._core: make install")
        return torch.from_numpy(numpy_fp4(x.numpy()))
    payload = np.empty(_core.encoded_bytes(codec, x.numel()), np.uint8)
    out = torch.empty_like(x)
    _core.encode(codec, x.data_ptr(), x.numel(), payload.ctypes.data)
    _core.decode(codec, payload.ctypes.data, x.numel(), out.data_ptr())
    return out


def directly_reduced(codec: str, deltas: list[Tensor]) -> Tensor:
    """The mean that the core's direct plan gives with a codec, fp32 [n]: each member owns a part,
    adds up its own numbers and the others' decoded ones, and all take what it encodes of the sum.
    """
    numel, members = deltas[0].numel(), len(deltas)
    sent = [through(codec, delta) for delta in deltas]
    bounds = [numel * part // members // 256 * 256 for part in range(members)] + [numel]
    mean = torch.empty_like(deltas[0])
    for owner in range(members):
        part = slice(bounds[owner], bounds[owner + 1])
        total = deltas[owner][part].clone()
        for behind in range(1, members):
            total += sent[(owner - behind) % members][part]
        mean[part] = through(codec, total / members)
    return mean


def nesterov(
    theta: Tensor, momentum: Tensor, total: Tensor, *, members: float, lr: float, mu: float
) -> tuple[Tensor, Tensor]:
    """The outer step along total / members: (theta', momentum'), fp32 [n] each."""
    theta_out, momentum_out = torch.empty_like(theta), torch.empty_like(momentum)
    _core.nesterov_step(
        theta_out.data_ptr(),
        momentum_out.data_ptr(),
        theta.data_ptr(),
        momentum.data_ptr(),
        total.data_ptr(),
        theta.numel(),
        1.0 / members,
        lr,
        mu,
    )
    return theta_out, momentum_out
