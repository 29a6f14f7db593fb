"""What the live view shows: a value, and how an event changes it. Nothing here draws."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, replace

from atoll_launcher.watch.events import Event, Kind
from atoll_launcher.watch.plain import plain_line

LINES_KEPT = 8
# More than any terminal is wide: a sparkline never needs more points.
LOSSES_KEPT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One island. `is_ours`: this launcher supervises it. NaN: not known yet."""

    name: str
    is_ours: bool = False
    pid: int = 0
    state: str = "starting"
    round: int = 0
    loss: float = math.nan
    tokens_per_s: float = math.nan
    sync_s: float = math.nan
    sent_bytes: int = 0
    sent_per_round: float = math.nan
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """The whole job."""

    job: str
    started_at_s: float
    address: str = ""
    log_dir: str = ""
    epoch: int = 0
    members: int = 0
    round: int = 0
    losses: tuple[float, ...] = ()
    tokens_per_s: float = math.nan
    rows: tuple[Row, ...] = ()
    lines: tuple[str, ...] = ()
    layout: str = ""
    """Of an elastic island: its stages; then what the last loss cost, and the throughput."""
    recovery: str = ""
    throughput: str = ""


def with_line(state: Dashboard, line: str) -> Dashboard:
    """Return the state with one more line at the bottom."""
    return replace(state, lines=(*state.lines, line)[-LINES_KEPT:])


def advance(state: Dashboard, event: Event) -> Dashboard:
    """Return the state after an event."""
    state = _with_row(_with_job(state, event), event)
    if event.kind is Kind.ROUND or (line := plain_line(event)) is None:
        return state
    return with_line(state, line)


def _with_job(state: Dashboard, event: Event) -> Dashboard:
    match event.kind:
        case Kind.LISTENING:
            return replace(
                state,
                address=event.text("address"),
                job=event.text("job"),
                log_dir=event.text("log_dir"),
            )
        case Kind.VIEW:
            # Unknown when the next view came before anybody could ask.
            members = len(event.names("members")) or state.members
            return replace(state, epoch=event.integer("epoch"), members=members)
        case Kind.ROUND:
            losses = (*state.losses, event.number("loss"))[-LOSSES_KEPT:]
            return replace(
                state,
                round=event.integer("round"),
                losses=losses if math.isfinite(losses[-1]) else state.losses,
                tokens_per_s=event.number("tokens_per_s"),
            )
        case Kind.LAYOUT:
            return replace(state, layout=event.text("message"))
        case Kind.RECOVERY:
            return replace(state, recovery=event.text("message"))
        case Kind.THROUGHPUT:
            return replace(state, throughput=event.text("message"))
        case _:
            return state


def _with_row(state: Dashboard, event: Event) -> Dashboard:
    if not event.island:
        return state
    old = next((row for row in state.rows if row.name == event.island), None)
    new = _changed(old or Row(name=event.island), event)
    if new is None:
        return replace(state, rows=tuple(row for row in state.rows if row is not old))
    if old is None:
        return replace(state, rows=(*state.rows, new))
    return replace(state, rows=tuple(new if row is old else row for row in state.rows))


def _changed(row: Row, event: Event) -> Row | None:
    """Return an island's row after an event; None when it need not be shown any more."""
    match event.kind:
        case Kind.STARTED:
            return Row(
                name=row.name,
                is_ours=True,
                pid=event.integer("pid"),
                restarts=event.integer("attempt"),
            )
        case Kind.EXITED:
            return replace(row, state=_end_of(event), pid=0)
        case Kind.RESTARTING:
            return replace(row, state=f"waits {event.number('wait_s'):.0f} s")
        case Kind.GAVE_UP:
            return replace(row, state="given up")
        case Kind.JOINED:
            return replace(row, state="member")
        case Kind.LEFT:
            return row if row.is_ours else None
        case Kind.REPORT:
            return _with_report(row, event)
        case _:
            return row


def _end_of(event: Event) -> str:
    match event.integer("signal"), event.integer("code"):
        case 0, 0:
            return "finished"
        case signal.SIGTERM, _:
            return "stopped"
        case _:
            return "crashed"


def _with_report(row: Row, event: Event) -> Row:
    round_, sent = event.integer("round"), event.integer("sent_bytes")
    per_round = row.sent_per_round
    if round_ > row.round and sent >= row.sent_bytes:
        per_round = (sent - row.sent_bytes) / (round_ - row.round)
    return replace(
        row,
        state=event.text("phase") or row.state,
        round=round_,
        loss=event.number("loss"),
        tokens_per_s=event.number("tokens_per_s"),
        sync_s=event.number("sync_s"),
        sent_bytes=sent if round_ > row.round else row.sent_bytes,
        sent_per_round=per_round,
    )
