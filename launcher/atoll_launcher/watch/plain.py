"""Events as lines of text, for people who read a log and for programs that search one."""

from __future__ import annotations

import math
import re
import signal
from typing import assert_never

from atoll.trust.exposure import is_loopback
from atoll_launcher.watch.events import Event, Kind, signal_name

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


def _page(event: Event) -> str:
    """Where the job can be watched, if it can."""
    port = event.integer("metrics_port")
    return f"; page http://127.0.0.1:{port}/" if port > 0 else ""


def way_in(event: Event) -> str:
    """How to add an island to the job of a `listening` event: without the token, which nobody but
    the joiner is to see, but with the command that makes one."""
    address = event.text("address")
    if not event.fields.get("secure"):
        return f"join it with: atoll run --join {address} SCRIPT"
    if not (authority := event.text("authority")):
        return f"at {address}"
    local = is_loopback(address.rpartition(":")[0])
    reached = "" if local else " [--advertise ADDRESS, if others can dial it there]"
    return (
        f"join it with a token: atoll token --dir {authority} --enroll {address}; then on the "
        f"joining machine: ATOLL_TOKEN=TOKEN atoll run --join {address}{reached} SCRIPT"
    )


def plain_line(event: Event) -> str | None:
    """Return an event as one line; None for those that only programs want."""
    name = event.island
    match event.kind:
        case Kind.LISTENING:
            logs = f"logs in {event.text('log_dir')}"
            return f"job {event.text('job')}, {way_in(event)} ({logs}{_page(event)})"
        case Kind.STARTED:
            again = (
                f" again (restart {event.integer('attempt')})" if event.integer("attempt") else ""
            )
            pid = f", pid {event.integer('pid')}" if event.integer("pid") else ""
            return f"{name} started{again}{pid}"
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
        case Kind.REVOKED | Kind.DRAINING | Kind.RELAYED:
            return event.text("message")
        case Kind.PARITY:
            return f"PARITY BROKEN: {event.text('message')}"
        case Kind.HEALED:
            return f"{name}: STATE HEALED: {event.text('message')}"
        case Kind.STATE_LOST:
            return f"STATE LOST: {event.text('message')}"
        case Kind.CHECKPOINT | Kind.RESTORED:
            return f"{name}: {event.text('message')}"
        case Kind.CHECKPOINT_FAILED | Kind.CHECKPOINT_DAMAGED:
            return f"{name}: CHECKPOINT: {event.text('message')}"
        case Kind.LAYOUT | Kind.RECOVERY | Kind.THROUGHPUT:
            return f"{event.kind.value}: {event.text('message')}"
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
    parts = [f"round {event.integer('round')}", f"loss {decimal(event.number('loss'), 3)}"]
    if "islands" not in event.fields:  # it was long ago
        return "  ".join([*parts, f"view {event.integer('epoch')}"])
    parts += [
        count(event.integer("islands"), "island"),
        f"view {event.integer('epoch')}",
        f"{scaled(event.number('tokens_per_s'))} tokens/s",
        f"sync {decimal(event.number('sync_s'), 2)} s",
    ]
    return "  ".join(parts)
