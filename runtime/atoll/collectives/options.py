"""The options of collectives, checked before anything is sent. Pure.

What goes together (a codec with float32 sums, weights with averages) the engine knows, and refuses
in the same call."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from atoll import errors
from atoll.config import nearest

OPS = ("sum", "avg", "min", "max", "product")
PLANS = ("auto", "ring", "direct", "doubling", "mesh", "grouped")
CODECS = (
    "fp32",
    "bf16",
    "fp16",
    "fp8",
    "int8",
    "int8_minmax",
    "int4",
    "int4_minmax",
    "fp4",
    "two_bit",
)
ROUNDINGS = ("nearest", "stochastic")
MAX_CHANNELS = 4096
"""As in csrc/atoll/base/limits.h."""

_LONGEST_S = 1e9


def one_of(what: str, value: object, known: Collection[str]) -> str:
    """Returns `value`; raises MisuseError unless it is one of the known names."""
    if isinstance(value, str) and value in known:
        return value
    near = nearest(value, known) if isinstance(value, str) else None
    hint = f"did you mean '{near}'?" if near else f"known are {', '.join(known)}"
    raise errors.MisuseError(f"{what} {value!r} is not known; {hint}")


def whole(what: str, value: object, low: int, high: int) -> int:
    """Returns `value`; raises MisuseError unless it is an int in [low, high)."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
        raise errors.MisuseError(f"{what} {value!r} is not in [{low}, {high})")
    return value


def check_channel(channel: object) -> int:
    """Returns it; raises MisuseError unless it is a channel's number."""
    return whole("channel", channel, 0, MAX_CHANNELS)


def check_priority(priority: object) -> int:
    """Returns it; raises MisuseError unless it is a signed number of 32 bits."""
    return whole("priority", priority, -(1 << 31), 1 << 31)


def check_tag(tag: object) -> int:
    """Returns it; raises MisuseError unless it is an unsigned number of 64 bits."""
    return whole("tag", tag, 0, 1 << 64)


def check_note(note: object) -> int:
    """Returns it; raises MisuseError unless it is an unsigned number of 64 bits."""
    return whole("note", note, 0, 1 << 64)


def nanos(what: str, seconds: object) -> int:
    """Seconds as the engine's nanoseconds. Raises MisuseError unless they are a positive number."""
    if isinstance(seconds, int | float) and 0 < seconds < _LONGEST_S:
        return max(1, int(seconds * 1e9))
    raise errors.MisuseError(f"{what} must be a positive number of seconds, not {seconds!r}")


def codec_name(codec: object) -> str:
    """The engine's name of a codec; None is fp32, numbers as they are. Raises MisuseError."""
    return "fp32" if codec is None else one_of("codec", codec, CODECS)


def reduction(
    *, op: object, codec: object, rounding: object, seed: object, weight: object
) -> dict[str, Any]:
    """The engine's keywords for a reduction. Raises MisuseError."""
    if not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
        raise errors.MisuseError(f"weight must be a number from 0 on, not {weight!r}")
    return {
        "reduction": one_of("op", op, OPS),
        "codec": codec_name(codec),
        "rounding": one_of("rounding", rounding, ROUNDINGS),
        "seed": whole("seed", seed, 0, 1 << 64),
        "weight": float(weight),
    }
