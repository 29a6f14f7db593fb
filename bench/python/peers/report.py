"""Makes docs/results/peers/page.md, a part of docs/results.md, from the JSON files of `compare.py`.

.venv/bin/python bench/python/peers/report.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "docs/results/peers"

INTRODUCTION = """## Recovery beside TorchFT, averaging beside hivemind
    make bench-peers

Replicas train the same model (131,584 parameters, SGD, batches of 8) without a pause, over loopback
on one machine, by the same harness (`bench/python/peers/`): atoll's FaultTolerantDDP with default
settings; TorchFT 0.2.0 over gloo with its own (`torchft`: a replica is dead after 5 s without a
heartbeat, everything else may take 60 s), and with the fastest that were stable here
(`torchft-fast`: 100 ms, heartbeats every 10 ms, 5 s; 20 quorum retries). Both with torch 2.13.0.
TorchFT's gradients go through one `Manager.allreduce`. A cell has the median, the worst case and
the number of events."""

EVENTS = {
    "kill": "SIGKILL to the slowest survivor's next step",
    "stop": "SIGSTOP, where others wait for it in a collective",
    "rejoin": "a new replica, from its call to its first whole step",
    "pause": "the others' longest gap meanwhile",
    "gap": "longest gap while the coordinator is away 2 s",
    "calm": "longest gap in as long a time before",
    "normal": "an undisturbed step",
}
"""By what is measured, in the page's order."""

LIBRARIES = ("atoll", "torchft", "torchft-fast")
AVERAGERS = ("atoll", "atoll-tcp", "gloo", "hivemind")

# The goals.
KILL_S, WORST_S, BEYOND_S, TIMES = 0.05, 0.5, 0.2, 8.0
SILENCE_S = 5.0

Samples = dict[tuple[str, int, str], list[float]]
"""Seconds by (what, replicas, library)."""


def load(folder: Path) -> tuple[Samples, list[dict[str, Any]]]:
    """The samples, and the files whose jobs ended."""
    samples: Samples = {}
    ended = []
    for path in sorted(folder.glob("*.json")):
        one: dict[str, Any] = json.loads(path.read_text())
        for what, values in one["found"].items():
            # Who joins after a SIGSTOP, and steps before one, are counted with the kills.
            if what != "ended" and values and (one["case"] != "stop" or what == "stop"):
                key = (what, one["replicas"], one["library"])
                samples.setdefault(key, []).extend(values)
        if one["found"].get("ended"):
            ended.append(one)
    return samples, ended


def shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{shown(statistics.median(values))}; {shown(max(values))} ({len(values)})"


def table(samples: Samples) -> list[str]:
    lines = [
        "| | replicas | " + " | ".join(LIBRARIES) + " |",
        "|---|---|" + "---|" * len(LIBRARIES),
    ]
    for what, title in EVENTS.items():
        for replicas in sorted({key[1] for key in samples if key[0] == what}):
            cells = [cell(samples.get((what, replicas, name), [])) for name in LIBRARIES]
            lines.append(f"| {title} | {replicas} | {' | '.join(cells)} |")
    return lines


def averages(samples: Samples) -> list[str]:
    counts = sorted({key[1] for key in samples if key[0] == "average"})
    if not counts:
        return []
    lines = ["| mean of 64 MiB | " + " | ".join(AVERAGERS) + " | hivemind / atoll |"]
    lines += ["|---|" + "---|" * (len(AVERAGERS) + 1)]
    for count in counts:
        found = [samples.get(("average", count, name), []) for name in AVERAGERS]
        times = statistics.median(found[-1]) / statistics.median(found[0]) if all(found) else 0.0
        cells = " | ".join(map(cell, found))
        lines.append(f"| {count} peers | {cells} | {f'{times:.3g}' if times else ''} |")
    return lines


def verdicts(samples: Samples) -> list[str]:
    lines = []
    for replicas in sorted({key[1] for key in samples if key[2] == "atoll"}):
        mine = {what: samples.get((what, replicas, "atoll"), []) for what in (*EVENTS, "average")}
        if kills := mine["kill"]:
            good = statistics.median(kills) < KILL_S and max(kills) < WORST_S
            lines.append(
                f"- {replicas} replicas, SIGKILL: median under {shown(KILL_S)}, none above "
                f"{shown(WORST_S)}: {met(good)}."
            )
        if stops := mine["stop"]:
            beyond = max(stops) - SILENCE_S
            lines.append(
                f"- {replicas} replicas, SIGSTOP: at most the failure timeout of "
                f"{shown(SILENCE_S)} and {shown(BEYOND_S)}: {beyond * 1e3:+.0f} ms at worst, "
                f"{met(beyond < BEYOND_S)}."
            )
        theirs = samples.get(("average", replicas, "hivemind"), [])
        if theirs and mine["average"]:
            times = statistics.median(theirs) / statistics.median(mine["average"])
            lines.append(
                f"- {replicas} peers, mean: {TIMES:.0f} times as fast as hivemind: {times:.3g}, "
                f"{met(times >= TIMES)}."
            )
    return lines


def met(good: bool) -> str:
    return "met" if good else "**missed**"


def endings(ended: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for one in ended:
        found, case = one["found"], one["case"]
        survived = len(found.get("gap" if case == "coordinator" else case, []))
        lines.append(
            f"- {one['library']}, {one['replicas']} replicas, {case}: the survivors' training "
            f"ended in {len(found['ended'])} of {survived + len(found['ended'])}. The last error: "
            f"`{found['ended'][-1]}`"
        )
    return lines


def write(folder: Path) -> None:
    samples, ended = load(folder)
    parts = [[INTRODUCTION], table(samples), averages(samples), verdicts(samples) + endings(ended)]
    text = "\n\n".join("\n".join(part) for part in parts if part)
    (folder / "page.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    write(RESULTS)
