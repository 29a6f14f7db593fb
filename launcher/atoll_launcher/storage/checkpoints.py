"""`atoll checkpoints list|verify`: what checkpoints there are and whether they are whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from atoll.checkpoint.manifest import Manifest
from atoll.checkpoint.places import Place, open_place
from atoll.checkpoint.read import Entry, problem_of, survey
from atoll.checkpoint.shards import folder_of, shards_of, stamp_of, worker_folder_of, worker_of
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.watch.plain import scaled_bytes

PIPE_WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A checkpoint and what is wrong with it; `verified`: whether its files were read."""

    entry: Entry
    problem: str | None
    verified: bool

    @property
    def state(self) -> str:
        if self.problem is not None:
            return "DAMAGED"
        return "whole" if self.verified else "complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """A checkpoint of islands of several processes, or of an elastic island: the parts that are
    there, by number. unit: who writes one, "shard" or "worker". folders: of all parts. name: of all
    of them, a pattern that a shell understands."""

    unit: str
    folders: tuple[str, ...]
    parts: dict[int, Finding]
    name: str

    @property
    def state(self) -> str:
        states = {part.state for part in self.parts.values()}
        if "DAMAGED" in states:
            return "DAMAGED"
        return "in part" if self.missing else min(states)

    @property
    def missing(self) -> list[int]:
        """Numbers of which there is none: still being written, or whose writer died before."""
        return [number for number in range(len(self.folders)) if number not in self.parts]


def show(url: str, *, verify: bool, as_json: bool) -> int:
    """Prints what is at `url`; returns the exit code. Raises ConfigError and LauncherError."""
    place = open_place(url)
    try:
        found: list[Finding | Together] = []
        folders = place.folders()
        for shards in sorted({shards_of(name) or 0 for name in folders} - {0}):
            found += _of_shards(url, shards, verify)
        found += _of_workers(url, folders, verify)
        found += [_examined(place, entry, verify) for entry in survey(place)]
    except OSError as error:
        raise LauncherError(
            f"{place.url}: cannot be listed: {error.strerror or error}; check the URL"
        ) from error
    if as_json:
        value = {"url": place.url, "checkpoints": [as_object(finding) for finding in found]}
        print(json.dumps(value, indent=2))
    else:
        _print_table(place.url, found)
    damaged = any(finding.state == "DAMAGED" for finding in found)
    return exit_codes.DAMAGED if damaged else exit_codes.OK


def _examined(place: Place, entry: Entry, verify: bool) -> Finding:
    problem = entry.problem
    if verify and entry.manifest is not None:
        problem = problem_of(place, entry.name, entry.manifest)
    return Finding(entry=entry, problem=problem, verified=verify)


def _of_shards(url: str, shards: int, verify: bool) -> list[Together]:
    """Newest first. Of parts of one shard that took each other's turn the later one is shown."""
    folders = tuple(folder_of(shard, shards) for shard in range(shards))
    found: dict[tuple[int, str], dict[int, Finding]] = {}
    for shard, folder in enumerate(folders):
        for finding in _in_folder(url, folder, verify):
            entry = finding.entry
            found.setdefault((entry.round, stamp_of(entry.name)), {})[shard] = finding
    pattern = folders[0].replace("0", "*", 1)
    return _newest_first(
        Together(unit="shard", folders=folders, parts=parts, name=f"{pattern}/{_any(parts)[:-8]}*")
        for parts in found.values()
    )


def _of_workers(url: str, folders: list[str], verify: bool) -> list[Together]:
    """Of an elastic island, in those folders that are its workers'; a part whose manifest cannot be
    read is shown by itself."""
    together: list[Together] = []
    found: dict[tuple[int, str], dict[int, Finding]] = {}
    counts: dict[tuple[int, str], int] = {}
    for folder in folders:
        number = worker_of(folder)
        if number is None:
            continue
        for finding in _in_folder(url, folder, verify):
            manifest = finding.entry.manifest
            if manifest is None:
                name = f"{folder}/{finding.entry.name}"
                one = Together(unit="worker", folders=(folder,), parts={0: finding}, name=name)
                together.append(one)
                continue
            key = (finding.entry.round, str(manifest.values.get("layout")))
            found.setdefault(key, {})[number] = finding
            counts[key] = int(manifest.values.get("parts", 1))
    together += [
        Together(
            unit="worker",
            folders=tuple(map(worker_folder_of, range(count))),
            parts=found[key],
            name=f"part-*/{_any(found[key])[:-8]}*",
        )
        for key, count in counts.items()
    ]
    return _newest_first(together)


def _in_folder(url: str, folder: str, verify: bool) -> list[Finding]:
    """Oldest first."""
    place = open_place(f"{url.rstrip('/')}/{folder}")
    return [_examined(place, entry, verify) for entry in reversed(survey(place))]


def _any(parts: dict[int, Finding]) -> str:
    return next(iter(parts.values())).entry.name


def _newest_first(found: Iterable[Together]) -> list[Together]:
    def age(one: Together) -> tuple[int, float]:
        known = [part.entry.known for part in one.parts.values()]
        return known[0].round, max(each.created_s for each in known)

    return sorted(found, key=age, reverse=True)


def as_object(finding: Finding | Together) -> dict[str, object]:
    """A checkpoint as JSON has it; fields of a manifest that cannot be read are missing."""
    if isinstance(finding, Together):
        return {
            "name": finding.name,
            "round": _entries(finding)[0].round,
            "state": finding.state.lower(),
            "problem": "; ".join(_problems(finding)) or None,
            f"{finding.unit}s": len(finding.folders),
            "parts": [{finding.unit: n, **as_object(part)} for n, part in finding.parts.items()],
        }
    entry = finding.entry
    head: dict[str, object] = {
        "name": entry.name,
        "round": entry.round,
        "state": finding.state.lower(),
        "problem": finding.problem,
    }
    manifest = entry.manifest
    if manifest is None:
        return head
    return head | {
        "job": manifest.job,
        "epoch": manifest.epoch,
        "revision": manifest.revision,
        "created_s": manifest.created_s,
        "island": manifest.island,
        "software": manifest.software,
        "bytes": manifest.nbytes,
        "identity": manifest.values.get("identity"),
        "files": [
            {
                "name": file.name,
                "group": file.group,
                "bytes": file.nbytes,
                "digest": file.digest,
                "tensors": len(file.tensors),
            }
            for file in manifest.files
        ],
    }


def _entries(finding: Finding | Together) -> list[Entry]:
    if isinstance(finding, Together):
        return [part.entry for part in finding.parts.values()]
    return [finding.entry]


def _problems(finding: Finding | Together) -> list[str]:
    """A line each."""
    if isinstance(finding, Finding):
        return [] if finding.problem is None else [f"{finding.entry.name}: {finding.problem}"]
    missing = ", ".join(map(str, finding.missing))
    said = [f"{finding.name}: no part of {finding.unit} {missing}"] if missing else []
    return said + [
        f"{finding.folders[number]}/{line}"
        for number, part in finding.parts.items()
        for line in _problems(part)
    ]


def _print_table(url: str, found: list[Finding | Together]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    if not found:
        console.print(f"no complete checkpoint at {url}", markup=False)
        return
    console.print(f"{url}, newest first", markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (
        ("round", "right"),
        ("state", "left"),
        ("written", "left"),
        ("size", "right"),
        ("files", "right"),
        ("job", "left"),
        ("by", "left"),
        ("name", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for finding in found:
        entries = _entries(finding)
        manifests = [entry.manifest for entry in entries if entry.manifest is not None]
        known = _known(manifests) if manifests else ["-"] * 5
        name = finding.name if isinstance(finding, Together) else finding.entry.name
        table.add_row(str(entries[0].round), finding.state, *known, name)
    console.print(table)
    for finding in found:
        for line in _problems(finding):
            console.print(line, markup=False)


def _known(manifests: list[Manifest]) -> list[str]:
    """What a row says of all parts together."""
    when = datetime.fromtimestamp(max(one.created_s for one in manifests), UTC)
    return [
        f"{when:%Y-%m-%d %H:%M:%S} UTC",
        scaled_bytes(sum(one.nbytes for one in manifests)),
        str(sum(len(one.files) for one in manifests)),
        manifests[0].job,
        ", ".join(sorted({one.island for one in manifests})),
    ]
