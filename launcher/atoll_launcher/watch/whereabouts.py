"""Which job a command means when it names none: ATOLL_COORDINATOR's, or the one started here.

`atoll run` and `atoll up` say so in `.atoll/running/` of their folder, while they run.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.config import parse_addresses
from atoll_launcher.exit_codes import LauncherError

HOME = Path(".atoll/running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """A job's coordinator, and the folder of a certificate for it: an operator's, or what may only
    look."""

    address: str
    tls: Path | None = None
    operates: bool = False


@contextlib.contextmanager
def told(address: str, tls: Path | None, *, operates: bool) -> Iterator[None]:
    """Say where the job is, as long as the context lasts. A read-only folder is no obstacle."""
    known = {
        "address": address,
        "tls": None if tls is None else str(tls.resolve()),
        "operates": operates,
        "pid": os.getpid(),
    }
    path = HOME / f"{os.getpid()}.json"
    with contextlib.suppress(OSError):
        HOME.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known) + "\n")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def find(address: str | None, env: Mapping[str, str]) -> Whereabouts:
    """Return where the job is that a command means. Raises LauncherError."""
    if address:
        try:
            parse_addresses(address)
        except ValueError as error:
            raise LauncherError(f"{address}: {error}") from None
        known = (one for one in _running() if one.address == address)
        return next(known, Whereabouts(address=address))
    if named := env.get("ATOLL_COORDINATOR"):
        return find(named, {})
    here = _running()
    if not here:
        raise LauncherError(
            "no job was started in this folder that still runs; name its coordinator: HOST:PORT, "
            "or set ATOLL_COORDINATOR"
        )
    if len(here) > 1:
        names = ", ".join(one.address for one in here)
        raise LauncherError(f"several jobs run here; name one of their coordinators: {names}")
    return here[0]


def island_and_address(words: Sequence[str]) -> tuple[str, str | None]:
    """Of `ISLAND` or `HOST:PORT ISLAND`. Raises LauncherError."""
    if len(words) == 1:
        return words[0], None
    if len(words) == 2:
        return words[1], words[0]
    raise LauncherError("expected ISLAND, or HOST:PORT ISLAND")


def is_address(word: str) -> bool:
    """Whether a word can only be HOST:PORT."""
    try:
        parse_addresses(word)
    except ValueError:
        return False
    return True


def _running() -> list[Whereabouts]:
    found: dict[str, Whereabouts] = {}
    for path in sorted(HOME.glob("*.json")):
        try:
            known = json.loads(path.read_text())
            os.kill(int(known["pid"]), 0)
        except PermissionError:
            pass  # somebody else's, and it lives
        except (OSError, ValueError, KeyError, TypeError):
            continue
        tls = known.get("tls")
        one = Whereabouts(
            address=known["address"],
            tls=None if tls is None else Path(tls),
            operates=bool(known.get("operates")),
        )
        # The folder of `atoll up` may also be that of an island, which may do less.
        if one.address not in found or _rank(one) > _rank(found[one.address]):
            found[one.address] = one
    return list(found.values())


def _rank(one: Whereabouts) -> tuple[bool, bool]:
    return one.operates, one.tls is not None
