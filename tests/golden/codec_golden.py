"""Writes tests/native/codec_golden.h: vectors and their encodings, computed from docs/codecs.md.

    python tests/golden/codec_golden.py > tests/native/codec_golden.h

Written to be obvious, with NumPy, in float64 where that is exact. Shares nothing with the C++.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U32 = npt.NDArray[np.uint32]

TINY, HUGE = np.float32(2.0**-118), np.float32(float.fromhex("0x1.ffffp127"))
COUNT = 256 + 64 + 37
SEED = 20240229


def sample() -> F32:
    """Return stretches of many kinds; NaN and infinities are in the last block."""
    random = np.random.default_rng(7)
    x = random.normal(0, 0.02, COUNT).astype(np.float32)
    x[40:80] *= np.exp2(random.integers(-20, 1, 40)).astype(np.float32)
    x[80:100] = np.arange(-10, 10, dtype=np.float32) / 128  # ties
    x[100:104] = [0.0, -0.0, 1e-42, -1e-42]
    x[192:256] = x[192:256] + np.float32(0.5)
    x[256:300] = random.normal(0, 1e37, 44)
    x[320:] = random.normal(3, 1, COUNT - 320)
    x[330], x[340], x[350] = np.nan, np.inf, -np.inf
    return x


def noise(count: int) -> U32:
    """32 random bits per element: SplitMix64 of (seed, block of 256), then a 32-bit mixer."""
    mask = 2**64 - 1
    bits = np.zeros(count, np.uint32)
    for i in range(count):
        z = (SEED + (i // 256 + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        first, second = z & 0xFFFFFFFF, z >> 32
        w = (first + i % 256 * 0x9E3779B9) & 0xFFFFFFFF
        w = ((w ^ w >> 16) * 0x7FEB352D) & 0xFFFFFFFF
        w = (((w ^ w >> 15) + second) * 0x846CA68B) & 0xFFFFFFFF
        bits[i] = w ^ w >> 16
    return bits


def packed(codes: npt.NDArray[np.int64], width: int) -> bytes:
    """Byte j of 16: the codes of elements j, 16 + j, ... of its group, lowest bits first."""
    out = bytearray()
    group = 128 // width
    for start in range(0, len(codes), group):
        part = codes[start : start + group]
        row = bytearray(min(len(part), 16))
        for i, code in enumerate(part):
            row[i % 16] |= (int(code) & (1 << width) - 1) << (i // 16 * width)
        out += row
    return bytes(out)


def to_levels(y: F64, levels: F64, random: U32 | None, bits: int) -> npt.NDArray[np.int64]:
    """Index of the nearest of ascending levels, ties to even; or the one below, or above at random.

    The chance of the one above is the share of the gap that lies below y, truncated to `bits` bits.
    """
    below = np.clip(np.searchsorted(levels, y, side="right") - 1, 0, len(levels) - 2)
    share = (y - levels[below]) / (levels[below + 1] - levels[below])
    if random is None:
        up = (share > 0.5) | ((share == 0.5) & (below % 2 == 1))
    else:
        chance = np.floor(share * 2**bits).astype(np.int64)
        up = chance + (random & (2**bits - 1)) >= 2**bits
    return below + up


def small_levels(bias: int, mantissa: int, codes: int) -> F64:
    """Return the values of the codes 0, 1, ... of a small float, denormals included."""
    code = np.arange(codes)
    exponent, fraction = code >> mantissa, code & (1 << mantissa) - 1
    significand = fraction + np.where(exponent > 0, 1 << mantissa, 0)
    return np.ldexp(significand.astype(np.float64), np.maximum(exponent, 1) - bias - mantissa)


def bf16(x: F32, random: U32 | None) -> bytes:
    sign = np.signbit(x).astype(np.uint16) << 15
    magnitude = np.abs(np.where(np.isfinite(x), x, 0)).view(np.uint32).astype(np.uint64)
    if random is None:
        low, code = magnitude & 0xFFFF, magnitude >> 16
        code = code + ((low > 0x8000) | ((low == 0x8000) & (code & 1 == 1)))
    else:
        code = (magnitude + (random & 0xFFFF)) >> 16
    code = np.minimum(code, 0x7F7F).astype(np.uint16) | sign
    code = np.where(np.isinf(x), 0x7F80 | sign, code)
    return np.where(np.isnan(x), 0x7FC0, code).astype("<u2").tobytes()


def fp16(x: F32, random: U32 | None) -> bytes:
    finite = np.where(np.isfinite(x), x, 0)
    if random is None:
        half = np.clip(finite, -65504, 65504).astype(np.float16).view(np.uint16)
    else:
        magnitude = np.abs(finite.astype(np.float64))
        levels = np.append(small_levels(15, 10, 0x7C00), 65536.0)
        half = to_levels(np.minimum(magnitude, 65535.0), levels, random, 13)
        half = np.minimum(half, 0x7BFF).astype(np.uint16) | np.signbit(x).astype(np.uint16) << 15
    half = np.where(np.isinf(x), np.where(x > 0, 0x7C00, 0xFC00), half)
    return np.where(np.isnan(x), 0x7E00, half).astype("<u2").tobytes()


def exponent_of(amax: float, up: bool) -> int:
    """floor or ceil of log2, exactly."""
    fraction, exponent = np.frexp(max(amax, float(TINY)))
    return int(exponent) - (0 if up and fraction > 0.5 else 1)


def fp8(x: F32, random: U32 | None) -> bytes:
    finite = np.where(np.isfinite(x), x, 0).astype(np.float64)
    scale = 2.0 ** (exponent_of(np.abs(finite).max(), False) - 7)
    code = to_levels(np.abs(finite) / scale, small_levels(7, 3, 0x7F), random, 20)
    code = np.where(np.isfinite(x), code | np.signbit(x) * 0x80, 0x7F)
    return np.float32(scale).tobytes() + packed(code, 8)


def fp4(x: F32, random: U32 | None) -> bytes:
    finite = np.where(np.isfinite(x), x, 0).astype(np.float64)
    scale = 2.0 ** exponent_of(np.abs(finite).max(), random is not None)
    y = np.abs(finite) / scale
    if random is None:
        with np.errstate(divide="ignore"):
            power = np.floor(np.log2(y) + 0.5)
        level = np.where(power < -6, 0, 7 + np.clip(power, -6, 0)).astype(np.int64)
    else:
        level = to_levels(y, np.append([0.0], np.exp2(np.arange(-6.0, 2.0))), random, 23)
        level = np.minimum(level, 7)
    code = np.where((level > 0) & np.signbit(x), level + 8, level)
    return np.float32(scale).tobytes() + packed(np.where(np.isfinite(x), code, 8), 4)


def integer(largest: int, width: int, minmax: bool) -> Callable[[F32, U32 | None], bytes]:
    def encode(x: F32, random: U32 | None) -> bytes:
        top, half_of = np.float32(largest), np.float32(0.5)
        finite = np.where(np.isfinite(x), x, np.float32(0))
        middle, half = np.float32(0), np.abs(finite).max()
        if minmax:
            low, high = (np.clip(f(x[np.isfinite(x)]), -HUGE, HUGE) for f in (np.min, np.max))
            half = half_of * high - half_of * low
            middle = low + half
        scale, inverse = np.float32(0), np.float32(0)
        if half > 0:
            half = np.clip(half, TINY, HUGE)
            scale, inverse = half / top, top / half
        y = (finite - middle) * inverse
        if random is None:
            code = np.rint(y)
        else:
            code = np.floor(y + (random >> 8).astype(np.float32) * np.float32(2.0**-24))
        code = np.where(np.isfinite(x), np.clip(code, -largest, largest), -largest - 1)
        header = scale.tobytes() + (middle.tobytes() if minmax else b"")
        return header + packed(code.astype(np.int64), width)

    return encode


def two_bit(x: F32, random: U32 | None) -> bytes:
    if not np.isfinite(x).all():
        return np.uint32(0x7FC00000).tobytes() + packed(np.zeros(len(x), np.int64), 2)
    outer = np.abs(x).max()
    if random is None:
        lanes = np.zeros(16, np.float32)
        for i, value in enumerate(np.abs(x)):
            lanes[i % 16] += value * np.float32(2.0**-9)
        for half in (8, 4, 2, 1):
            lanes = lanes[:half] + lanes[half : 2 * half]
        outer = min(lanes[0] * (np.float32(958.4) / np.float32(len(x))), outer)
    outer = np.clip(outer, TINY, HUGE) if np.abs(x).max() > 0 else np.float32(0)
    inverse = np.float32(1.5) / outer if outer > 0 else np.float32(0)
    y = x * inverse + np.float32(1.5)
    if random is None:
        code = np.rint(y)
    else:
        code = np.floor(y + (random >> 8).astype(np.float32) * np.float32(2.0**-24))
    return outer.tobytes() + packed(np.clip(code, 0, 3).astype(np.int64), 2)


CODECS: list[tuple[str, int, Callable[[F32, U32 | None], bytes]]] = [
    ("bf16", 256, bf16),
    ("fp16", 256, fp16),
    ("fp8", 256, fp8),
    ("int8", 256, integer(127, 8, False)),
    ("int8_minmax", 256, integer(127, 8, True)),
    ("int4", 64, integer(7, 4, False)),
    ("int4_minmax", 64, integer(7, 4, True)),
    ("fp4", 256, fp4),
    ("two_bit", 256, two_bit),
]


def main() -> None:
    x, random = sample(), noise(COUNT)
    print("// Generated by tests/golden/codec_golden.py; do not edit.\n#pragma once\n")
    print('#include <cstdint>\n\n#include "atoll/codec/codec.h"\n\nnamespace reef::golden {\n')
    print(f"inline constexpr std::uint64_t kSeed = {SEED};\n")
    print("inline constexpr std::uint32_t kInput[] = {")
    words = [f"0x{word:08x}" for word in x.view(np.uint32)]
    for start in range(0, COUNT, 8):
        print("    " + ", ".join(words[start : start + 8]) + ",")
    print("};\n\nstruct Vector {\n  CodecId id;\n  Rounding rounding;\n  const char* hex;\n};")
    print("inline constexpr Vector kVectors[] = {")
    for name, block, encode in CODECS:
        for rounding in ("nearest", "stochastic"):
            data = b""
            for at in range(0, COUNT, block):
                part = slice(at, at + block)
                data += encode(x[part], random[part] if rounding == "stochastic" else None)
            text = data.hex()
            lines = [f'     "{text[i : i + 90]}"' for i in range(0, len(text), 90)]
            print(f"    {{CodecId::{name}, Rounding::{rounding},\n" + "\n".join(lines) + "},")
    print("};\n\n}  // namespace reef::golden")


if __name__ == "__main__":
    main()
