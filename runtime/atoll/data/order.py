"""A seeded permutation of [0, n) as a pure function, the same on every machine.

No table is kept, so a data set of any size costs nothing, and no library's random stream is part
of the run's identity. A four-round Feistel network over the smallest even number of bits that
holds n, walked until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains",
2002): fewer than four steps on average.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_ROUNDS = 4


def mix(value: int) -> int:
    """Scrambles 64 bits (the finalizer of SplitMix64: Steele, Lea, Flood, 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def permuted(position: int, *, count: int, seed: int, epoch: int) -> int:
    """The sample at `position` of pass `epoch` over `count` samples.

    Raises ValueError when the position is not in [0, count).
    """
    if not 0 <= position < count:
        raise ValueError(f"position {position} is not in [0, {count})")
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    low_mask = (1 << half) - 1
    keys = [mix((seed & _MASK) ^ mix(epoch * _ROUNDS + round_)) for round_ in range(_ROUNDS)]
    value = position
    while True:
        left, right = value >> half, value & low_mask
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & low_mask)
        value = (left << half) | right
        if value < count:
            return value
