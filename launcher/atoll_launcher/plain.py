"""Events as lines of text, for people who read a log and for programs that search one."""

from __future__ import annotations

import math
import re
import signal
from typing import assert_never

from atoll_launcher.events import Event, Kind, signal_name

# Escape sequences, and control characters other than the tab.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0a-\x1f\x7f]"
)


def scaled(value: float, units: str = " kMGT") -> str:
    """Return a number with three digits and a letter: 18.2k."""
    if not math.isfinite(value):
        return "-"
    for unit in units[:-1]:
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}".strip()
        value /= 1000
    return f"{value:.3g}{units[-1]}"


def scaled_bytes(value: float) -> str:
    """Return a number of bytes: 1.2 MB."""
    text = scaled(value)
    if text == "-":
        return text
    return f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"


def decimal(value: float, digits: int) -> str:
    """Return a number with so many digits behind the point; a dash when it is not known."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def count(number: int, noun: str) -> str:
    """Return 1 island, 2 islands."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(line: str) -> str:
    """Return a line of a script's output without what would disturb the terminal.

    Of a progress bar that rewrites its line, what it wrote last remains.
    """
    last = line.rstrip("\r").rpartition("\r")[2]
    return _CONTROL.sub("", last)


def how_it_ended(event: Event) -> str:
    """Return how the process of an `exited` event ended: SIGKILL, exit code 1."""
    number = event.integer("signal")
    return signal_name(number) if number else f"exit code {event.integer('code')}"


def plain_line(event: Event) -> str | None:
    """Return an event as one line; None for those that only programs want."""
    name = event.island
    match event.kind:
        case Kind.LISTENING:
            return (
                f"job {event.text('job')}, join it with: atoll run --join {event.text('address')} "
                f"SCRIPT (logs in {event.text('log_dir')})"
            )
        case Kind.STARTED:
            again = (
                f" again (restart {event.integer('attempt')})" if event.integer("attempt") else ""
            )
            return f"{name} started{again}, pid {event.integer('pid')}"
        case Kind.EXITED:
            if not event.integer("code") and not event.integer("signal"):
                return f"{name} finished"
            if event.integer("signal") == signal.SIGTERM:
                return f"{name} stopped"
            error = f": {event.text('error')}" if event.text("error") else ""
            return f"{name} exited: {how_it_ended(event)}{error}, log in {event.text('log')}"
        case Kind.RESTARTING:
            return (
                f"{name} starts again in {event.number('wait_s'):.0f} s "
                f"(restart {event.integer('attempt')})"
            )
        case Kind.GAVE_UP:
            return f"{name} is not started again: {event.text('reason')}"
        case Kind.JOINED:
            return f"{name} joined, view {event.integer('epoch')}"
        case Kind.LEFT:
            by = event.integer("signal")
            detail = f" ({signal_name(by)})" if by else ""
            return f"{name} left: {event.text('reason')}{detail}"
        case Kind.VIEW:
            members = ", ".join(event.names("members"))
            return f"view {event.integer('epoch')}" + (f": {members}" if members else "")
        case Kind.ROUND:
            return _round_line(event)
        case Kind.PARITY:
            return f"PARITY BROKEN: {event.text('message')}"
        case Kind.STATE_LOST:
            return f"STATE LOST: {event.text('message')}"
        case Kind.STOPPING:
            return f"stopping: {event.text('message')}"
        case Kind.NOTE:
            return event.text("message")
        case Kind.FINISHED:
            return f"finished: {event.text('message')}"
        case Kind.REPORT:
            return None
        case _:
            assert_never(event.kind)


def _round_line(event: Event) -> str:
    parts = [
        f"round {event.integer('round')}",
        f"loss {decimal(event.number('loss'), 3)}",
        count(event.integer("islands"), "island"),
        f"view {event.integer('epoch')}",
        f"{scaled(event.number('tokens_per_s'))} tokens/s",
        f"sync {decimal(event.number('sync_s'), 2)} s",
    ]
    return "  ".join(parts)
