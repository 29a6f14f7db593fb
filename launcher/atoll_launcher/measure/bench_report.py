"""What `atoll bench` prints: a document for programs, the same as a table for people."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atoll
from atoll.measure import Measurement
from atoll_launcher.measure.bench_request import Request, shown_size
from atoll_launcher.watch.plain import count, scaled, scaled_bytes

PIPE_WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """This machine at a moment. CPU seconds count from its start; NaN: not known here."""

    clock_s: float
    load: float
    busy_s: float
    """Of all processes."""
    own_s: float
    """Of this process, and of its children that have ended."""

    @staticmethod
    def now() -> Machine:
        """Look."""
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        usages = [resource.getrusage(one) for one in who]
        return Machine(
            clock_s=time.monotonic(),
            load=os.getloadavg()[0],
            busy_s=_busy_s(),
            own_s=sum(usage.ru_utime + usage.ru_stime for usage in usages),
        )


def others_busy(before: Machine, after: Machine) -> float:
    """Return how many cores other processes kept busy in between; NaN: not known here."""
    others = after.busy_s - before.busy_s - (after.own_s - before.own_s)
    elapsed = max(1e-9, after.clock_s - before.clock_s)
    # What the two clocks disagree about may be negative; NaN stays NaN.
    return 0.0 if others < 0 else others / elapsed


def _busy_s() -> float:
    try:
        user, nice, system, _, _, irq, softirq, steal = map(
            int, Path("/proc/stat").read_text().split(None, 9)[1:9]
        )
    except (OSError, ValueError):
        return float("nan")
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def document(
    request: Request,
    measurements: Sequence[Measurement],
    before: Machine,
    after: Machine,
    *,
    standalone: bool,
) -> dict[str, Any]:
    """Return everything, ready for JSON. Seconds and bytes; docs/performance.md explains it."""
    busy = others_busy(before, after)
    return {
        "operation": "allreduce",
        "atoll": atoll.__version__,
        "islands": measurements[0].members,
        "transport": request.transport,
        "machine": {
            "cores": os.cpu_count(),
            "load_before": before.load,
            "load_after": after.load,
            # Islands that others have started count as others.
            "others_busy_cores": round(busy, 3) if standalone and busy == busy else None,
        },
        "results": [_row(one) for one in measurements],
    }


def _row(one: Measurement) -> dict[str, Any]:
    return {
        "bytes": one.what.nbytes,
        "dtype": one.what.dtype,
        "plan": one.plan,
        "codec": one.what.codec,
        "iterations": one.iterations,
        "median_s": one.median_s,
        "min_s": one.min_s,
        "max_s": one.max_s,
        "bytes_per_s": one.bandwidth,
        "cpu_s_per_op": one.cpu_s,
        "cpu_s_per_moved_byte": one.cpu_s_per_byte,
        "sleeps_per_op": one.sleeps,
        "sent_bytes_per_island": list(one.sent_bytes),
        "error": one.error,
        "began_s": list(one.began_s),
        "times_s": [list(times) for times in one.times_s],
    }


def print_table(shown: dict[str, Any]) -> None:
    """Print a document for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    machine = shown["machine"]
    first = shown["results"][0]
    console.print(
        f"all-reduce of {first['dtype']}, {count(shown['islands'], 'island')}, plan "
        f"{first['plan']}, codec {first['codec'] or 'none'}, transport {shown['transport']}"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in (
        "size",
        "median",
        "min",
        "max",
        "of",
        "bandwidth",
        "CPU/op",
        "CPU/moved GB",
        "sent/island",
        "error",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in shown["results"]:
        sent = row["sent_bytes_per_island"]
        table.add_row(
            shown_size(row["bytes"]),
            *(_milliseconds(row[name]) for name in ("median_s", "min_s", "max_s")),
            str(row["iterations"]),
            scaled_bytes(row["bytes_per_s"]) + "/s",
            _milliseconds(row["cpu_s_per_op"]),
            f"{row['cpu_s_per_moved_byte'] * 1e9:.3g} s",
            scaled_bytes(sum(sent) / len(sent)),
            f"{row['error']:.1g}",
        )
    console.print(table)
    others = machine["others_busy_cores"]
    note = "" if others is None else f", others kept {scaled(others)} busy meanwhile"
    console.print(
        f"load {machine['load_before']:.2f} before, {machine['load_after']:.2f} after, "
        f"{count(machine['cores'], 'core')}{note}"
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
