"""Where an island spends an all-reduce: system calls, sleeps and CPU per op, and the functions.

    .venv/bin/python bench/python/profile_island.py --islands 2 --size 1MiB [-- --plan ring ...]

Needs perf; tracepoints need root. Starts `atoll bench allreduce --standalone`, watches one island
while it measures, and prints what an op costs it, thread by thread, and the functions of all
islands with their callers' share. What follows `--` goes to `atoll bench`. For names of the core's
functions build it as docs/performance.md says.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVENTS = [
    "raw_syscalls:sys_enter",
    *(f"syscalls:sys_enter_{name}" for name in ("epoll_wait", "epoll_ctl", "sendmsg", "readv")),
    *(f"syscalls:sys_enter_{name}" for name in ("recvmsg", "read", "write", "futex")),
    "sched:sched_switch",
    "page-faults",
    "task-clock",
]
WATCH_S = 2.0
# Interpreters that start, torch that is imported, islands that meet; for each of them.
SETTLE_S = 2.5


def bench(args: argparse.Namespace, iterations: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "atoll_launcher", "bench", "allreduce", "--standalone"]
    options = ["--islands", str(args.islands), "--size", args.size, "--json", *args.rest]
    return subprocess.Popen(
        [*command, *options, "--iterations", str(iterations)], stdout=subprocess.PIPE, text=True
    )


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        sys.exit(process.returncode)
    result: dict[str, Any] = json.loads(out)["results"][0]
    return result


def islands_of(process: subprocess.Popen[str], wanted: int) -> list[int]:
    """Wait for the islands' processes to be there and at work."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        pids = [int(pid) for pid in children.read_text().split()]
        if len(pids) == wanted:
            time.sleep(SETTLE_S * wanted)
            return pids
        time.sleep(0.05)
    sys.exit("error: the islands did not start")


def watch(pid: int, *options: str) -> tuple[float, float, list[tuple[str, str, float]]]:
    """Return when it began and ended to watch, and what `counts` found."""
    began_s = time.monotonic()
    found = list(counts(pid, *options))
    return began_s, time.monotonic(), found


def ops_between(result: dict[str, Any], began_s: float, ended_s: float) -> float:
    """Return how many ops an island has run in that time, in which perf has slowed it down."""
    ends = list(itertools.accumulate(result["times_s"], initial=result["began_s"]))
    ops = bisect.bisect(ends, ended_s) - bisect.bisect(ends, began_s)
    # What perf does before and after it counts.
    return max(1.0, ops * WATCH_S / (ended_s - began_s))


def counts(pid: int, *options: str) -> Iterator[tuple[str, str, float]]:
    """Yield (thread or empty, event, count) of WATCH_S seconds."""
    command = ["perf", "stat", "-x", ";", *options, "-e", ",".join(EVENTS), "-p", str(pid)]
    done = subprocess.run(
        [*command, "--", "sleep", str(WATCH_S)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"error: perf stat: {done.stderr.strip().splitlines()[0]}")
    for line in done.stderr.splitlines():
        fields = line.split(";")
        thread = fields.pop(0) if "--per-thread" in options else ""
        if len(fields) > 2 and fields[0].replace(".", "").isdigit():
            yield thread, fields[2], float(fields[0])


def functions(data: Path, *options: str) -> list[str]:
    command = ["perf", "report", "-i", str(data), "-g", "none", "--sort", "symbol", *options]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    kept = [" ".join(line.split()).removesuffix(" - -") for line in lines if line[:1] not in "#"]
    return [line[:120] for line in kept if line]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--islands", type=int, default=2)
    parser.add_argument("--size", default="1MiB")
    parser.add_argument("--top", type=int, default=25, help="functions to show")
    parser.add_argument("rest", nargs="*", help="options of atoll bench, after --")
    args = parser.parse_args()
    if shutil.which("perf") is None:
        sys.exit("error: perf is not there; docs/performance.md says what else can be used")

    median_s = result_of(bench(args, 7))["median_s"]
    iterations = int((SETTLE_S * args.islands + 2.5 * WATCH_S) / median_s) + 7
    process = bench(args, iterations)
    pid = islands_of(process, args.islands)[0]
    *when, whole = watch(pid)
    *when_threads, threads = watch(pid, "--per-thread")
    result = result_of(process)
    # Which rank the island has is not known; they run in step.
    result |= {"times_s": result["times_s"][0], "began_s": result["began_s"][0]}
    ops = ops_between(result, *when)
    print(f"{result['median_s'] * 1e3:.3f} ms, plan {result['plan']}; one island, per op:")
    for _, event, count in whole:
        print(f"  {event.removeprefix('syscalls:sys_enter_'):24} {count / ops:9.2f}")
    ops = ops_between(result, *when_threads)
    for name in ("task-clock", "sched:sched_switch", "raw_syscalls:sys_enter"):
        print(f"threads, {name} per op:")
        rows = sorted(((count / ops, who) for who, event, count in threads if event == name))
        for count, who in reversed(rows[-5:]):
            print(f"  {who:24} {count:9.4f}")

    process = bench(args, iterations)
    pids = islands_of(process, args.islands)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        command = ["perf", "record", "-e", "cpu-clock", "-F", "4000", "--call-graph", "fp"]
        subprocess.run(
            [*command, "-o", str(data), "-p", ",".join(map(str, pids)), "--", "sleep", "2"],
            capture_output=True,
            check=False,
        )
        result_of(process)
        print("functions of all islands, themselves:")
        print(*functions(data, "--no-children")[: args.top], sep="\n")
        print("with what they call (all, themselves):")
        ours = [
            line for line in functions(data, "--children") if "reef::" in line or "sys_" in line
        ]
        print(*ours[: args.top], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
