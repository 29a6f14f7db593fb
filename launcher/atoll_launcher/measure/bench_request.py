"""What `atoll bench allreduce` is asked for, checked before anything is started."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.collectives.options import CODECS, PLANS
from atoll.config import SessionSettings, nearest
from atoll.errors import MisuseError
from atoll.measure import DTYPES, FEWEST_ITERATIONS, ITEM_BYTES, AllReduce
from atoll_launcher.exit_codes import LauncherError

DEFAULT_SIZES = ("1KiB", "1MiB", "16MiB")
LARGEST_BYTES = 1 << 36
MAX_ITERATIONS = 1_000_000

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[f"{_letter}ib"] = 1024**_power
    _UNITS[f"{_letter}b"] = 1000**_power


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Checked. `transport`: auto, tcp or shm."""

    series: tuple[AllReduce, ...]
    transport: str

    def to_json(self) -> str:
        """Return it as one argument of a command line."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> Request:
        """Return what `to_json` wrote."""
        fields = json.loads(text)
        series = tuple(AllReduce(**one) for one in fields["series"])
        return Request(series=series, transport=fields["transport"])


def parse_size(text: str) -> int:
    """Return 16MiB, 4 MB or 1024 as bytes. Raises MisuseError."""
    match = re.fullmatch(r"\s*(\d+)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    if match is None or match[2] not in _UNITS:
        raise MisuseError(f"--size {text}: expected bytes, for example 1KiB, 16MiB or 268435456")
    nbytes = int(match[1]) * _UNITS[match[2]]
    if not 1 <= nbytes <= LARGEST_BYTES:
        raise MisuseError(f"--size {text}: must be from 1 byte to {shown_size(LARGEST_BYTES)}")
    return nbytes


def shown_size(nbytes: int) -> str:
    """Return bytes as people write them: 16MiB; odd numbers stay as they are."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if nbytes >= 1024**power and nbytes % 1024**power == 0:
            return f"{nbytes // 1024**power}{unit}"
    return f"{nbytes}B"


def parse_request(
    *,
    sizes: Sequence[str],
    codec: str | None,
    plan: str,
    dtype: str,
    transport: str,
    iterations: int | None,
) -> Request:
    """Return the request; raise MisuseError, or LauncherError, for what cannot be meant."""
    _one_of("--plan", plan, PLANS)
    _one_of("--dtype", dtype, tuple(DTYPES))
    if codec is not None:
        _one_of("--codec", codec, CODECS)
    if iterations is not None and not FEWEST_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise MisuseError(
            f"--iterations {iterations}: must be from {FEWEST_ITERATIONS} to {MAX_ITERATIONS}; "
            "a median of fewer says little"
        )
    if transport == "shm" and "shared_memory" not in SessionSettings.__dataclass_fields__:
        raise MisuseError("--transport shm: this version exchanges over TCP alone; leave it out")
    name = DTYPES[dtype]
    series = []
    for text in sizes or DEFAULT_SIZES:
        nbytes = parse_size(text)
        if nbytes % ITEM_BYTES[name] != 0:
            raise MisuseError(
                f"--size {text}: no whole number of {name} values, {ITEM_BYTES[name]} bytes each"
            )
        series.append(
            AllReduce(nbytes=nbytes, dtype=name, plan=plan, codec=codec, iterations=iterations)
        )
    return Request(series=tuple(series), transport=transport)


def check_memory(request: Request, islands: int) -> None:
    """Raise LauncherError for vectors that so many islands cannot hold at once on this machine."""
    # The source, the target, and the sum that it is compared with.
    needed = 3 * islands * max(one.nbytes for one in request.series)
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _meminfo(), re.MULTILINE)
    if match is not None and needed > int(match[1]) * 1024:
        raise LauncherError(
            f"{islands} islands with such vectors need {needed / 2**30:.1f} GiB, and "
            f"{int(match[1]) / 2**20:.1f} GiB of memory are free; choose a smaller --size"
        )


def _meminfo() -> str:
    try:
        return Path("/proc/meminfo").read_text()
    except OSError:
        return ""


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        near = nearest(value, known)
        hint = f"did you mean '{near}'?" if near else f"known are: {', '.join(known)}"
        raise MisuseError(f"{option} {value}: not known, {hint}")
