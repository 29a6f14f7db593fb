"""The journal of samples: one line per island and committed round, and the proof drawn from it.

A session writes `ledger-<island>.jsonl` into its log folder. Several islands write the same rounds;
`audit` checks that they agree and that every position was used exactly once a pass.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.data.ledger import Span, count, union

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One committed round as one island saw it. `used`: spans by contributor (hex peer id)."""

    time_s: float
    round: int
    epoch: int
    data_epoch: int
    digest: str
    used: dict[str, tuple[Span, ...]]

    @property
    def spans(self) -> list[Span]:
        return [span for spans in self.used.values() for span in spans]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The state was restored as it was after round `restored`, in view `epoch`: rounds after it
    that were committed before are void and come again."""

    time_s: float
    restored: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """`problems` is empty when all is well; `positions` counts what was used, by pass."""

    rounds: int
    positions: dict[int, int]
    problems: tuple[str, ...]


def line_of(entry: Entry | Restart) -> str:
    """One line of JSON, without its end."""
    if isinstance(entry, Restart):
        return json.dumps({"time": entry.time_s, "restored": entry.restored, "epoch": entry.epoch})
    value: dict[str, Any] = {
        "time": entry.time_s,
        "round": entry.round,
        "epoch": entry.epoch,
        "data_epoch": entry.data_epoch,
        "digest": entry.digest,
        "used": {peer: [list(span) for span in spans] for peer, spans in entry.used.items()},
    }
    return json.dumps(value)


def parse(line: str) -> Entry:
    """The inverse of `line_of`. Raises ValueError, KeyError or TypeError for anything else."""
    value = json.loads(line)
    return Entry(
        time_s=float(value["time"]),
        round=int(value["round"]),
        epoch=int(value["epoch"]),
        data_epoch=int(value["data_epoch"]),
        digest=str(value["digest"]),
        used={
            peer: tuple((int(begin), int(end)) for begin, end in spans)
            for peer, spans in value["used"].items()
        },
    )


def append(folder: Path, island: str, entry: Entry | Restart) -> None:
    """Adds a line to an island's journal. What goes wrong is logged: training goes on."""
    path = folder / f"ledger-{island}.jsonl"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line_of(entry) + "\n")
    except OSError as error:
        logger.warning("%s: %s; the journal of samples is incomplete", path, error.strerror)


def restart_of(line: str) -> Restart | None:
    """The restart that a line tells of; None: it is an entry's."""
    value = json.loads(line)
    if "restored" not in value:
        return None
    return Restart(
        time_s=float(value["time"]), restored=int(value["restored"]), epoch=int(value["epoch"])
    )


def read(*folders: Path) -> dict[str, list[Entry]]:
    """The journals of a job by island, without the rounds that a restart from a checkpoint made
    void. A last line cut off by a kill is left out.

    folders: one for each run of the job; an island's name in a later one gets the folder's number.
    """
    journals: dict[str, list[Entry]] = {}
    restarts: list[Restart] = []
    for number, folder in enumerate(folders):
        for path in sorted(folder.glob("ledger-*.jsonl")):
            entries = []
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                restart = restart_of(line)
                if restart is None:
                    entries.append(parse(line))
                else:
                    restarts.append(restart)
            island = path.stem.removeprefix("ledger-")
            journals[island if number == 0 else f"{island} ({number})"] = entries
    return {island: standing(entries, restarts) for island, entries in journals.items()}


def standing(entries: Iterable[Entry], restarts: Sequence[Restart]) -> list[Entry]:
    """Those entries that no later restart has made void. Compares times: the islands' clocks must
    agree better than a restart takes."""
    return [
        entry
        for entry in entries
        if not any(
            entry.round > restart.restored and entry.time_s < restart.time_s for restart in restarts
        )
    ]


def audit(journals: Mapping[str, Sequence[Entry]], *, samples: int, passes: int) -> Audit:
    """Checks that islands agree on every round and that no position is used twice in a pass.

    samples: positions of a pass. passes: so many must be used up completely.
    """
    problems: list[str] = []
    rounds: dict[int, tuple[str, Entry]] = {}
    for island, entries in journals.items():
        for entry in entries:
            first, known = rounds.setdefault(entry.round, (island, entry))
            if (known.digest, known.used) != (entry.digest, entry.used):
                problems.append(f"round {entry.round}: {first} and {island} differ")
    for number in range(1, max(rounds, default=0) + 1):
        if number not in rounds:
            problems.append(f"round {number}: nobody has it")
    spans: dict[int, list[Span]] = {}
    for _, entry in rounds.values():
        spans.setdefault(entry.data_epoch, []).extend(entry.spans)
    for data_epoch in sorted({*spans, *range(passes)}):
        used = spans.get(data_epoch, [])
        problems += _of_one_pass(data_epoch, used, samples, data_epoch < passes)
    return Audit(
        rounds=len(rounds),
        positions={data_epoch: count(used) for data_epoch, used in sorted(spans.items())},
        problems=tuple(problems),
    )


def _of_one_pass(data_epoch: int, used: Iterable[Span], samples: int, full: bool) -> list[str]:
    try:
        together = union(used)
    except ValueError as error:
        return [f"pass {data_epoch}: {error}"]
    if any(begin < 0 or end > samples for begin, end in together):
        return [f"pass {data_epoch}: positions outside of [0, {samples})"]
    if full and together != ((0, samples),):
        return [f"pass {data_epoch}: {samples - count(together)} of {samples} samples were lost"]
    return []
