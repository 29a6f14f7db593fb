"""The network that `atoll plan` asks about: of equal lines, or from a file. docs/planning.md has
the files' format."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atoll.config import nearest
from atoll.errors import MisuseError
from atoll.planning.network import Network
from atoll_launcher.planning.units import parse_line, parse_rate, parse_time

MOST_ISLANDS = 10_000
MOST_SITES = 256
"""Also of the islands in a matrix: their links would be more than the core has figures for."""
_MATRIX_KEYS = ("rates", "rtts", "step_s")
_FILE_KEYS = ("site", "between")
_SITE_KEYS = ("name", "islands", "link", "inside", "step_s")
_BETWEEN_KEYS = ("sites", "link")


def equal_lines(islands: int, link: str, step_s: float) -> Network:
    """Return islands that all have the same line. Raises MisuseError."""
    check_islands("--islands", islands)
    up, down, rtt_s = parse_line("--link", link)
    return Network(
        site=np.zeros(islands, dtype=np.intp),
        rate_bytes_per_s=np.full((1, 1), min(up, down)),
        rtt_s=np.full((1, 1), rtt_s),
        step_s=np.full(islands, step_s),
    )


def from_file(path: Path, step_s: float) -> Network:
    """Return the network in a .toml or .json file. Raises MisuseError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise MisuseError(f"--links {path}: cannot be read: {reason}") from None
    try:
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise MisuseError(f"--links {path}: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise MisuseError(f"--links {path}: lists are nested too deeply") from None
    where = f"--links {path}"
    table = _table(where, value, _MATRIX_KEYS + _FILE_KEYS)
    if "rates" in table or "rtts" in table:
        return _of_matrix(where, _table(where, table, _MATRIX_KEYS), step_s)
    return _of_sites(where, _table(where, table, (*_FILE_KEYS, "step_s")), step_s)


def check_islands(what: str, islands: object) -> int:
    """Return it. Raises MisuseError for a number of islands that nobody can mean."""
    if not isinstance(islands, int) or isinstance(islands, bool):
        raise MisuseError(f"{what}: {islands!r} is not a whole number of islands")
    if not 1 <= islands <= MOST_ISLANDS:
        raise MisuseError(f"{what}: {islands} is not in 1 .. {MOST_ISLANDS} islands")
    return islands


def check_step(what: str, step_s: object) -> float:
    """Return it. Raises MisuseError unless it is a time that an inner step can take."""
    if isinstance(step_s, int | float) and not isinstance(step_s, bool):
        seconds = float(step_s)
        if math.isfinite(seconds) and 1e-6 <= seconds <= 1e6:
            return seconds
    raise MisuseError(f"{what}: {step_s!r} is not a step's seconds, from 1e-6 to 1e6")


def _of_matrix(where: str, table: dict[str, Any], step_s: float) -> Network:
    for key in ("rates", "rtts"):
        if key not in table:
            raise MisuseError(f"{where}: '{key}' is missing; a matrix needs rates and rtts")
    rates = _rows(f"{where}: rates", table["rates"])
    rtts = _rows(f"{where}: rtts", table["rtts"])
    if len(rates) != len(rtts):
        raise MisuseError(f"{where}: rates are of {len(rates)} islands and rtts of {len(rtts)}")
    islands = len(rates)
    rate = np.ones((islands, islands))
    rtt = np.zeros((islands, islands))
    for i in range(islands):
        for j in range(islands):
            if i != j:  # what stands on the diagonal means nothing
                rate[i, j] = parse_rate(f"{where}: rates[{i}][{j}]", rates[i][j])
                rtt[i, j] = parse_time(f"{where}: rtts[{i}][{j}]", rtts[i][j])
    steps = table.get("step_s", step_s)
    if isinstance(steps, list):
        if len(steps) != islands:
            raise MisuseError(f"{where}: step_s is of {len(steps)} islands, rates of {islands}")
        seconds = [check_step(f"{where}: step_s[{i}]", step) for i, step in enumerate(steps)]
    else:
        seconds = [check_step(f"{where}: step_s", steps)] * islands
    return Network(
        site=np.arange(islands),
        rate_bytes_per_s=rate,
        rtt_s=rtt,
        step_s=np.array(seconds),
    )


def _rows(what: str, value: object) -> list[list[str]]:
    """Return a square matrix of text."""
    if not isinstance(value, list) or not value:
        raise MisuseError(f"{what}: expected a list of rows, one for each island")
    if len(value) > MOST_SITES:
        raise MisuseError(
            f"{what}: {len(value)} islands; a matrix has at most {MOST_SITES}, describe more as "
            "sites"
        )
    for i, row in enumerate(value):
        if not isinstance(row, list) or len(row) != len(value):
            raise MisuseError(f"{what}[{i}]: expected a list of {len(value)}, as there are rows")
        for j, cell in enumerate(row):
            if i != j and not isinstance(cell, str):
                raise MisuseError(
                    f'{what}[{i}][{j}]: {cell!r} is no text with a unit, like "200mbit" or "80ms"'
                )
    return value


def _of_sites(where: str, table: dict[str, Any], step_s: float) -> Network:
    sites = table.get("site")
    if not isinstance(sites, list) or not sites:
        raise MisuseError(f"{where}: expected [[site]] tables, or the matrices rates and rtts")
    if len(sites) > MOST_SITES:
        raise MisuseError(f"{where}: {len(sites)} sites, at most {MOST_SITES}")
    step_s = check_step(f"{where}: step_s", table.get("step_s", step_s))
    names: list[str] = []
    counts, lines, steps = [], [], []
    for number, value in enumerate(sites):
        name, here, site = _site(where, number, value)
        if name in names:
            raise MisuseError(f"{where}: two sites are named '{name}'")
        names.append(name)
        counts.append(check_islands(f"{here}: islands", site.get("islands", 1)))
        lines.append(parse_line(f"{here}: link", _text(here, site, "link")))
        steps.append(check_step(f"{here}: step_s", site.get("step_s", step_s)))
    check_islands(f"{where}: all sites together", sum(counts))
    up, down, rtt = (np.array(column) for column in zip(*lines, strict=True))
    rates = np.minimum(up[:, None], down[None, :])
    rtts = (rtt[:, None] + rtt[None, :]) / 2
    for number, value in enumerate(sites):
        if "inside" in value:
            here = f"{where}: site '{names[number]}': inside"
            out, back, inner = parse_line(here, _text(here, value, "inside"))
            rates[number, number], rtts[number, number] = min(out, back), inner
    _between(where, table.get("between", []), names, rates, rtts)
    return Network(
        site=np.repeat(np.arange(len(sites)), counts),
        rate_bytes_per_s=rates,
        rtt_s=rtts,
        step_s=np.repeat(np.array(steps), counts),
    )


def _site(where: str, number: int, value: object) -> tuple[str, str, dict[str, Any]]:
    site = _table(f"{where}: site {number}", value, _SITE_KEYS)
    name = site.get("name", f"site-{number}")
    if not isinstance(name, str) or not name:
        raise MisuseError(f"{where}: site {number}: name: expected a text, not {name!r}")
    return name, f"{where}: site '{name}'", site


def _between(
    where: str,
    value: object,
    names: list[str],
    rates: np.ndarray[Any, Any],
    rtts: np.ndarray[Any, Any],
) -> None:
    """Set what was said of the way between two sites, both ways (up: from the first)."""
    if not isinstance(value, list):
        raise MisuseError(f"{where}: between: expected [[between]] tables")
    for number, entry in enumerate(value):
        here = f"{where}: between {number}"
        table = _table(here, entry, _BETWEEN_KEYS)
        pair = table.get("sites")
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise MisuseError(f"{here}: sites: expected the names of two sites")
        for name in pair:
            if name not in names:
                near = nearest(str(name), names)
                hint = f"did you mean '{near}'?" if near else f"known are {', '.join(names)}"
                raise MisuseError(f"{here}: there is no site {name!r}; {hint}")
        one, other = names.index(pair[0]), names.index(pair[1])
        out, back, rtt_s = parse_line(f"{here}: link", _text(here, table, "link"))
        # No link is faster than the lines at its ends.
        rates[one, other] = min(out, rates[one, other])
        rates[other, one] = min(back, rates[other, one])
        rtts[one, other] = rtts[other, one] = rtt_s


def _text(where: str, table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        said = "is missing" if value is None else f"{value!r} is no text"
        raise MisuseError(f'{where}: {key} {said}; write it like "1gbit,80ms"')
    return value


def _table(where: str, value: object, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MisuseError(f"{where}: expected a table, not {value!r:.40}")
    for key in value:
        if key not in keys:
            near = nearest(key, keys)
            hint = f"did you mean '{near}'?" if near else f"known here are {', '.join(keys)}"
            raise MisuseError(f"{where}: unknown key '{key}'; {hint}")
    return value
