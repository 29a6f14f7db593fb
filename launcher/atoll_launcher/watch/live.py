"""The live view: a pure function from the dashboard to what rich draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from atoll_launcher.watch.dashboard import Dashboard, Row
from atoll_launcher.watch.plain import count, decimal, scaled, scaled_bytes

BARS = "▁▂▃▄▅▆▇█"
STYLES = {
    "training": "green",
    "exchanging": "cyan",
    "member": "green",
    "finished": "dim",
    "crashed": "bold red",
    "given up": "bold red",
}


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the values as bars, the newest on the right; more values than bars are averaged."""
    if not values or width < 1:
        return ""
    bins = min(width, len(values))
    edges = [len(values) * i // bins for i in range(bins + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges) if b > a]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)


def clock(seconds: float) -> str:
    """Return 1:02:03, or 02:03 within the first hour."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def render(state: Dashboard, now_s: float, width: int) -> RenderableType:
    """Return the view at the Unix time `now_s` for a terminal of `width` columns."""
    head = Panel(_head(state, now_s, width), title=f"atoll  {state.job}", title_align="left")
    lines = Text("\n".join(state.lines), style="dim", no_wrap=True, overflow="ellipsis")
    return Group(head, _table(state.rows), lines)


def _head(state: Dashboard, now_s: float, width: int) -> Text:
    loss = state.losses[-1] if state.losses else math.nan
    facts = [
        f"round {state.round}",
        f"view {state.epoch}",
        count(state.members, "member"),
        f"{scaled(state.tokens_per_s)} tokens/s",
        clock(now_s - state.started_at_s),
    ]
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("   ".join(facts) + "\n")
    text.append(f"loss {decimal(loss, 3)} ", style="bold")
    text.append(sparkline(state.losses, min(60, width - 20)) + "\n", style="cyan")
    for name in ("layout", "recovery", "throughput"):
        if shown := getattr(state, name):
            text.append(f"{name} {shown}\n", style="cyan")
    text.append(f"join with: atoll run --join {state.address} SCRIPT\n", style="dim")
    text.append(f"logs in {state.log_dir}", style="dim")
    return text


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("island", no_wrap=True)
    table.add_column("pid", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("round", "loss", "tokens/s", "sync", "sent/round", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        sync = decimal(row.sync_s, 2)
        table.add_row(
            row.name,
            str(row.pid) if row.pid else "",
            Text(row.state, style=STYLES.get(row.state, "yellow")),
            str(row.round) if row.round else "-",
            decimal(row.loss, 3),
            scaled(row.tokens_per_s),
            sync if sync == "-" else f"{sync} s",
            scaled_bytes(row.sent_per_round),
            str(row.restarts) if row.is_ours else "",
        )
    return table
