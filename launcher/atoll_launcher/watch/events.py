"""What happens in a job, as values: the events file, the plain lines and the live view show these.

docs/launcher.md lists the kinds and their fields.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import math
import queue
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atoll_launcher.exit_codes import LauncherError

logger = logging.getLogger(__name__)

MOST_WAITING = 100_000
"""Events that nobody has read yet, some 40 MB."""
CLOSE_S = 2.0

Value = str | int | float | bool | list[str] | None


class Kind(enum.StrEnum):
    """What an event is about. The names in the events file."""

    LISTENING = "listening"  # the job can be joined: address, job, log_dir, metrics_port
    STARTED = "started"  # of this launcher: pid (pids, if several), attempt, log
    EXITED = "exited"  # pid, code, signal, error, log
    RESTARTING = "restarting"  # attempt, of, wait_s
    GAVE_UP = "gave_up"  # reason
    JOINED = "joined"  # epoch
    DRAINING = "draining"  # message: it was asked to leave
    LEFT = "left"  # reason, message, signal
    VIEW = "view"  # epoch, members
    ROUND = "round"  # round, loss, epoch, islands, contributed, tokens_per_s, sync_s, sent_bytes
    REPORT = "report"  # the fields of Report in control.proto
    PARITY = "parity"  # round, message: members' parameters differ
    HEALED = "healed"  # round, message: an island's state was wrong, and was mended
    STATE_LOST = "state_lost"  # message
    CHECKPOINT = "checkpoint"  # message: one is complete
    CHECKPOINT_FAILED = "checkpoint_failed"  # message: training goes on
    CHECKPOINT_DAMAGED = "checkpoint_damaged"  # message: passed over while restoring
    RESTORED = "restored"  # message: from a checkpoint
    RELAYED = "relayed"  # message: two islands reach each other through a third
    STOPPING = "stopping"  # message
    REVOKED = "revoked"  # message
    LAYOUT = "layout"  # message: an elastic island's stages
    RECOVERY = "recovery"  # message: what a loss has cost there
    THROUGHPUT = "throughput"  # message: in that layout
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
    """One JSON object a line, each written out at once, by a thread of its own: who reads slowly,
    or not at all, from a named pipe must not hold up the job. The owner closes it."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise LauncherError(
                f"cannot write {path}: {error.strerror}; choose another file with --events"
            ) from error
        self._path = path
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def write(self, event: Event) -> None:
        """Returns at once. Events are left out, and counted, while far too many wait."""
        try:
            self._waiting.put_nowait(to_json(event).encode() + b"\n")
        except queue.Full:
            self._left_out += 1

    def close(self) -> None:
        """Waits for what is left to be written, a moment at most if nobody reads it."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_S)
        self._thread.join(CLOSE_S)
        unread = self._waiting.qsize()
        if self._left_out or self._thread.is_alive():
            logger.warning(
                "%s: nobody has read the last %d events or more, %d of them were left out",
                self._path,
                unread + self._left_out,
                self._left_out,
            )

    def _run(self) -> None:
        with self._file:
            while (line := self._waiting.get()) is not None:
                try:
                    while line:
                        line = line[self._file.write(line) :]
                except OSError as error:
                    logger.error("cannot write %s any more: %s", self._path, error.strerror)
                    return
