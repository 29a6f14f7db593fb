"""Profiles of wide-area networks: a TOML file each, as hosts and links with checked numbers.

    [defaults]                 # of every host and link that does not say otherwise
    up_mbit = 200
    delay_ms = 40

    [[host]]                   # one table for each host, in order
    name = "lab"
    down_mbit = 500

    [[link]]                   # only what differs from the defaults
    between = ["lab", "cloud"]
    loss = 0.001

Pure: text in, values out. `Profile.commands` says it in the emulator's words (emulator/control.h).
"""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

PROFILES = Path(__file__).with_name("profiles")
MOST_HOSTS = 64


class ProfileError(ValueError):
    """One line: where, what, and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host's line. `queue_ms`: what the queues at both of its ends hold at most."""

    name: str
    up_mbit: float = 1000.0
    down_mbit: float = 1000.0
    queue_ms: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Both ways between two hosts. `delay_ms`: one way; `rate_mbit` 0: as the lines."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    rate_mbit: float = 0.0


LIMITS: dict[str, tuple[float, float]] = {
    "up_mbit": (1e-3, 1e5),
    "down_mbit": (1e-3, 1e5),
    "queue_ms": (1.0, 1e4),
    "delay_ms": (0.0, 6e4),
    "jitter_ms": (0.0, 6e4),
    "loss": (0.0, 1.0),
    "rate_mbit": (0.0, 1e5),
}
_OF_HOST = tuple(field.name for field in fields(Host) if field.name != "name")
_OF_LINK = tuple(field.name for field in fields(Link))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Hosts by number, and the link between every two of them: `links[a, b]`, a < b."""

    name: str
    hosts: tuple[Host, ...]
    links: dict[tuple[int, int], Link]

    def commands(self) -> list[str]:
        """Lines for the emulator that make its network this one."""
        lines = [
            f"host {number} up {host.up_mbit!r} down {host.down_mbit!r} queue {host.queue_ms!r}"
            for number, host in enumerate(self.hosts)
        ]
        lines += [
            f"link {a} {b} delay {link.delay_ms!r} jitter {link.jitter_ms!r} "
            f"loss {link.loss!r} rate {'0' if link.rate_mbit == 0 else repr(link.rate_mbit)}"
            for (a, b), link in sorted(self.links.items())
        ]
        return lines

    def with_everywhere(self, **changes: float) -> Profile:
        """The same with `changes` on every host or link that has such a setting."""
        of_host = {key: value for key, value in changes.items() if key in _OF_HOST}
        of_link = {key: value for key, value in changes.items() if key in _OF_LINK}
        if len(of_host) + len(of_link) != len(changes):
            raise ProfileError(f"no settings {sorted(changes.keys() - {*_OF_HOST, *_OF_LINK})}")
        for key, value in changes.items():
            _number(f"profile {self.name}", key, value)
        return replace(
            self,
            hosts=tuple(replace(host, **of_host) for host in self.hosts),
            links={pair: replace(link, **of_link) for pair, link in self.links.items()},
        )


def load(name: str) -> Profile:
    """Reads profiles/NAME.toml, or the file NAME. Raises ProfileError."""
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    try:
        text = path.read_text()
    except OSError as error:
        known = sorted(one.stem for one in PROFILES.glob("*.toml"))
        raise ProfileError(
            f"no profile {name} ({error.strerror}); there are {', '.join(known)}, "
            "or give the path of a .toml file"
        ) from error
    return parse(text, path.stem)


def parse(text: str, name: str) -> Profile:
    """A profile from its TOML text. Raises ProfileError."""
    where = f"profile {name}"
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{where} is no TOML: {error}") from error
    _known(where, document, ("defaults", "host", "link"))
    defaults = _table(f"{where}, defaults", document.get("defaults", {}), (*_OF_HOST, *_OF_LINK))
    of_hosts = {key: value for key, value in defaults.items() if key in _OF_HOST}
    of_links = {key: value for key, value in defaults.items() if key in _OF_LINK}
    hosts = _hosts(where, document.get("host", []), of_hosts)
    links = {(a, b): Link(**of_links) for a in range(len(hosts)) for b in range(a + 1, len(hosts))}
    numbers = {host.name: number for number, host in enumerate(hosts)}
    entries = document.get("link", [])
    if not isinstance(entries, list):
        raise ProfileError(f"{where}: links are written as [[link]] tables")
    for entry in entries:
        pair, link = _link(where, entry, numbers, of_links)
        links[pair] = link
    return Profile(name=name, hosts=tuple(hosts), links=links)


def _hosts(where: str, entries: Any, defaults: dict[str, float]) -> list[Host]:
    if not isinstance(entries, list) or not 2 <= len(entries) <= MOST_HOSTS:
        raise ProfileError(f"{where}: needs 2 to {MOST_HOSTS} [[host]] tables")
    hosts: list[Host] = []
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise ProfileError(f"{where}: a [[host]] without a name")
        if name in {host.name for host in hosts}:
            raise ProfileError(f"{where}: two hosts are called {name}")
        rest = {key: value for key, value in entry.items() if key != "name"}
        values = _table(f"{where}, host {name}", rest, _OF_HOST)
        hosts.append(Host(name=name, **{**defaults, **values}))
    return hosts


def _link(
    where: str, entry: Any, numbers: dict[str, int], defaults: dict[str, float]
) -> tuple[tuple[int, int], Link]:
    between = entry.get("between") if isinstance(entry, dict) else None
    if not isinstance(between, list) or len(between) != 2 or between[0] == between[1]:
        raise ProfileError(f'{where}: a [[link]] needs between = ["one host", "another"]')
    for name in between:
        if name not in numbers:
            raise ProfileError(f"{where}: a [[link]] names {name}; hosts are {', '.join(numbers)}")
    rest = {key: value for key, value in entry.items() if key != "between"}
    values = _table(f"{where}, link {between[0]} to {between[1]}", rest, _OF_LINK)
    a, b = sorted(numbers[name] for name in between)
    return (a, b), Link(**{**defaults, **values})


def _known(where: str, table: Any, names: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise ProfileError(f"{where}: is no table")
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise ProfileError(f"{where}: unknown key {key}; {hint}")


def _table(where: str, table: Any, names: tuple[str, ...]) -> dict[str, float]:
    _known(where, table, names)
    return {key: _number(where, key, value) for key, value in table.items()}


def _number(where: str, key: str, value: Any) -> float:
    least, most = LIMITS[key]
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or math.isnan(value) or not least <= value <= most:
        raise ProfileError(f"{where}: {key} = {value!r} is no number from {least:g} to {most:g}")
    return float(value)
