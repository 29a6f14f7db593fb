"""`atoll checkpoints list|verify`: what checkpoints there are and whether they are whole."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from atoll.checkpoint.places import Place, open_place
from atoll.checkpoint.read import Entry, problem_of, survey
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


def show(url: str, *, verify: bool, as_json: bool) -> int:
    """Prints what is at `url`; returns the exit code. Raises ConfigError and LauncherError."""
    place = open_place(url)
    try:
        entries = survey(place)
    except OSError as error:
        raise LauncherError(
            f"{place.url}: cannot be listed: {error.strerror or error}; check the URL"
        ) from error
    found = [_examined(place, entry, verify) for entry in entries]
    if as_json:
        value = {"url": place.url, "checkpoints": [as_object(finding) for finding in found]}
        print(json.dumps(value, indent=2))
    else:
        _print_table(place.url, found)
    damaged = any(finding.problem is not None for finding in found)
    return exit_codes.DAMAGED if damaged else exit_codes.OK


def _examined(place: Place, entry: Entry, verify: bool) -> Finding:
    problem = entry.problem
    if verify and entry.manifest is not None:
        problem = problem_of(place, entry.name, entry.manifest)
    return Finding(entry=entry, problem=problem, verified=verify)


def as_object(finding: Finding) -> dict[str, object]:
    """A checkpoint as JSON has it; fields of a manifest that cannot be read are missing."""
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


def _print_table(url: str, found: list[Finding]) -> None:
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
        manifest = finding.entry.manifest
        if manifest is None:
            known = ["-"] * 5
        else:
            when = datetime.fromtimestamp(manifest.created_s, UTC)
            known = [
                f"{when:%Y-%m-%d %H:%M:%S} UTC",
                scaled_bytes(manifest.nbytes),
                str(len(manifest.files)),
                manifest.job,
                manifest.island,
            ]
        table.add_row(str(finding.entry.round), finding.state, *known, finding.entry.name)
    console.print(table)
    for finding in found:
        if finding.problem is not None:
            console.print(f"{finding.entry.name}: {finding.problem}", markup=False)
