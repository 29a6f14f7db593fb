"""What happens in a job, as values: the events file, the plain lines and the live view show these.

docs/launcher.md lists the kinds and their fields.
"""

from __future__ import annotations

import enum
import json
import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from atoll_launcher.exit_codes import LauncherError

Value = str | int | float | bool | list[str] | None


class Kind(enum.StrEnum):
    """What an event is about. The names in the events file."""

    LISTENING = "listening"  # the job can be joined: address, job, log_dir, metrics_port
    STARTED = "started"  # a process of this launcher: pid, attempt, log
    EXITED = "exited"  # pid, code, signal, error, log
    RESTARTING = "restarting"  # attempt, of, wait_s
    GAVE_UP = "gave_up"  # reason
    JOINED = "joined"  # epoch
    LEFT = "left"  # reason, message, signal
    VIEW = "view"  # epoch, members
    ROUND = "round"  # round, loss, epoch, islands, contributed, tokens_per_s, sync_s, sent_bytes
    REPORT = "report"  # the fields of Report in control.proto
    PARITY = "parity"  # round, message: members' parameters differ
    STATE_LOST = "state_lost"  # message
    STOPPING = "stopping"  # message
    NOTE = "note"  # message: the launcher says something to people
    FINISHED = "finished"  # code, message


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened at `time_s` (Unix time), to `island` unless it concerns the whole job."""

    kind: Kind
    time_s: float
    island: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return a field that is text; empty when it is missing."""
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def integer(self, name: str) -> int:
        """Return a field that is a whole number; 0 when it is missing."""
        value = self.fields.get(name)
        return value if isinstance(value, int) else 0

    def number(self, name: str) -> float:
        """Return a field that is a number; NaN when it is missing or unknown."""
        value = self.fields.get(name)
        return float(value) if isinstance(value, (int, float)) else math.nan

    def names(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of names; empty when it is missing."""
        value = self.fields.get(name)
        return tuple(value) if isinstance(value, list) else ()


def signal_name(number: int) -> str:
    """Return SIGKILL for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def to_json(event: Event) -> str:
    """Return the event as one line of JSON; a number that is not known (NaN) becomes null."""
    head: dict[str, Value] = {"time": round(event.time_s, 6), "kind": event.kind.value}
    if event.island:
        head["island"] = event.island
    for name, value in event.fields.items():
        head[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return json.dumps(head, ensure_ascii=False)


class EventsFile:
    """One JSON object a line, each written out at once. The owner closes it."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise LauncherError(
                f"cannot write {path}: {error.strerror}; choose another file with --events"
            ) from error

    def write(self, event: Event) -> None:
        self._file.write(to_json(event) + "\n")

    def close(self) -> None:
        self._file.close()
