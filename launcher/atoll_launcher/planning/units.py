"""Rates, round trips and counts as people write them, with a unit or not at all. Pure."""

from __future__ import annotations

import re

from atoll.errors import MisuseError

_NUMBER = r"(\d+(?:\.\d+)?(?:e\+?\d+)?)"
_RATE = re.compile(_NUMBER + r"([kmgt])bit(?:/s)?", re.ASCII | re.IGNORECASE)
_TIME = re.compile(_NUMBER + r"(us|ms|s)", re.ASCII | re.IGNORECASE)
_COUNT = re.compile(_NUMBER + r"([kmbt]?)", re.ASCII | re.IGNORECASE)
_RATES = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
SLOWEST_BITS_PER_S, FASTEST_BITS_PER_S = 1e4, 1e13
LONGEST_S = 60.0
MOST_PARAMS = 10**12


def parse_rate(what: str, text: str) -> float:
    """Return 1gbit or 200mbit/s as bytes per second. Raises MisuseError."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise MisuseError(f"{what}: '{text}' is no rate; write it like 200mbit or 1.5gbit")
    bits = float(match[1]) * _RATES[match[2].lower()]
    if not SLOWEST_BITS_PER_S <= bits <= FASTEST_BITS_PER_S:
        raise MisuseError(f"{what}: the rate {text.strip()} is not in 10kbit .. 10tbit")
    return bits / 8


def parse_time(what: str, text: str) -> float:
    """Return 80ms, 1.5s or 300us in seconds. Raises MisuseError."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise MisuseError(f"{what}: '{text}' is no round trip; write it like 80ms, 0ms or 1.5s")
    seconds = float(match[1]) * _TIMES[match[2].lower()]
    if seconds > LONGEST_S:
        raise MisuseError(f"{what}: a round trip of {text.strip()} is more than a minute")
    return seconds


def parse_line(what: str, text: str) -> tuple[float, float, float]:
    """Return RATE,RTT or UP/DOWN,RTT as bytes per second up and down, and seconds."""
    rates, comma, rtt = text.rpartition(",")
    if not comma:
        raise MisuseError(
            f"{what}: '{text}' is no link; write rate and round trip, like 1gbit,80ms "
            "or 100mbit/1gbit,80ms for another rate up than down"
        )
    ways = re.split(r"(?<=bit)/(?!s(?:$|/))|(?<=bit/s)/", rates.strip(), flags=re.IGNORECASE)
    if len(ways) > 2:
        raise MisuseError(f"{what}: '{rates}' has more than two rates, up and down")
    up = parse_rate(what, ways[0])
    return up, parse_rate(what, ways[1]) if len(ways) == 2 else up, parse_time(what, rtt)


def parse_count(what: str, text: str) -> int:
    """Return 10e9, 2.5B or 125M as a whole number. Raises MisuseError."""
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise MisuseError(f"{what}: '{text}' is no number; write it like 10e9, 2.5B or 125M")
    number = float(match[1]) * _COUNTS[match[2].lower()]
    if number > MOST_PARAMS or number != int(number):
        raise MisuseError(f"{what}: {text.strip()} is not a whole number up to 1e12")
    return int(number)
