"""Our all-reduce beside gloo's and beside what the kernel allows, on this machine, in one run.

    make bench                                      (or: .venv/bin/python bench/python/allreduce.py)
    make bench BENCH_ARGS="--members 4 --sizes 16MiB --variants gloo tcp floor --json raw.json"

The variants take turns, size by size and several times over, so that what the machine does to one
it does to all. Judge by the ratios; docs/performance.md says how.

    gloo    torch.distributed, in place         floor   bare sockets (bench/native/floor.cpp)
    tcp     ours over loopback TCP              floor-256k: with send buffers as small as ours
    tls     the same, with certificates         int8, fp4, ...: ours over TCP with that codec
    shm     ours over shared memory
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import os
import signal
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from groups import Group, GroupError, atoll_group, floor, gloo_group
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from atoll.config import SessionSettings
from atoll.errors import AtollError
from atoll.session import Session
from atoll_launcher.measure.bench_report import Machine
from atoll_launcher.measure.bench_request import parse_size, shown_size

SIZES = ["1KiB", "1MiB", "16MiB", "256MiB"]
CODECS = ["int8", "fp4"]
# The program's sockets: with the kernel's send buffers, and with those that ours have on a host.
FLOORS = {"floor": 0, "floor-256k": 256 << 10}
VARIANTS = ["gloo", "tcp", "tls", "shm", *FLOORS, *CODECS]
FLOOR = Path(__file__).resolve().parents[2] / "build-bench" / "floor"
TURNS = 5
MOST_IN_A_TURN = 50

# (members, bytes, variant) -> what each turn gave
Samples = dict[tuple[int, int, str], list[dict[str, Any]]]


def iterations_for(nbytes: int) -> int:
    """Return how many ops a turn measures; five turns give a dozen of the largest."""
    return max(2, min(25, (64 << 20) // nbytes))


def missing(variant: str, program: Path) -> str:
    """Return why a variant cannot be measured; empty when it can."""
    if variant in ("gloo", "tcp", "tls"):
        return ""
    if variant in FLOORS:
        return "" if program.is_file() else f"{program} is not built; `make bench` builds it"
    if variant == "shm":
        known = "shared_memory" in SessionSettings.__dataclass_fields__
        return "" if known else "this version exchanges over TCP alone"
    known = "codec" in inspect.signature(Session.all_reduce).parameters
    return "" if known else "this version has no codecs"


def transport_of(variant: str) -> str:
    return variant if variant in ("gloo", "tls", "shm", *FLOORS) else "tcp"


async def measure_members(
    members: int, args: argparse.Namespace, samples: Samples, others: dict[tuple[int, int], float]
) -> None:
    wanted = {transport_of(variant) for variant in args.variants}
    async with contextlib.AsyncExitStack() as stack:
        groups: dict[str, Group] = {}
        if "gloo" in wanted:
            groups["gloo"] = await stack.enter_async_context(gloo_group(members))
        for transport in sorted(wanted & {"tcp", "tls", "shm"}):
            group = atoll_group(transport, members)
            groups[transport] = await stack.enter_async_context(group)
        for nbytes in args.sizes:
            before = busy(groups)
            for turn in range(args.turns):
                # Nobody always comes after the same one.
                first = turn % len(args.variants)
                for variant in args.variants[first:] + args.variants[:first]:
                    if variant in CODECS and nbytes not in args.codec_sizes:
                        continue
                    iterations = args.iterations or iterations_for(nbytes)
                    warm_up = 3 if turn == 0 else 1
                    say(f"{members} members, {shown_size(nbytes)}, turn {turn + 1}: {variant}")
                    if variant in FLOORS:
                        buffer = FLOORS[variant]
                        one = await floor(args.floor, members, nbytes, iterations, warm_up, buffer)
                    else:
                        codec = variant if variant in CODECS else None
                        group = groups[transport_of(variant)]
                        one = await group.measure(nbytes, iterations, warm_up, codec)
                    samples[members, nbytes, variant].append(one)
            after = busy(groups)
            ours, elapsed = after[1] - before[1], after[2] - before[2]
            others[members, nbytes] = max(0.0, after[0] - before[0] - ours) / elapsed
    say("")


def busy(groups: dict[str, Group]) -> tuple[float, float, float]:
    """Return CPU seconds of all processes, of those that belong to this run, and the time."""
    now = Machine.now()
    own = now.own_s
    for group in groups.values():
        for pid in group.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                own += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return now.busy_s, own, now.clock_s


def say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


# --- what it says ---------------------------------------------------------------------------------


def median_s(turns: list[dict[str, Any]]) -> float:
    return statistics.median(time_s for turn in turns for time_s in turn["times_s"])


def cpu_s(turns: list[dict[str, Any]]) -> float:
    return statistics.median(turn["cpu_s_per_op"] for turn in turns)


def show(samples: Samples, others: dict[tuple[int, int], float], variants: list[str]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    ours = [variant for variant in variants if variant not in ("gloo", *FLOORS)]

    def table(title: str, columns: list[str], cell: Any) -> None:
        shown = Table(box=MARKDOWN)
        for name in ("members", "size", *columns):
            shown.add_column(name, justify="right", no_wrap=True)
        for members, nbytes in others:
            values = [cell(members, nbytes, name) for name in columns]
            texts = ["-" if value is None else f"{value:.3g}" for value in values]
            shown.add_row(str(members), shown_size(nbytes), *texts)
        console.print(f"\n{title}")
        console.print(shown)

    def milliseconds(members: int, nbytes: int, name: str) -> float | None:
        if name == "others busy":
            return others[members, nbytes]
        turns = samples.get((members, nbytes, name))
        return median_s(turns) * 1e3 if turns else None

    def ratio(members: int, nbytes: int, name: str) -> float | None:
        above, below = (milliseconds(members, nbytes, one) for one in name.split(" / "))
        return above / below if above and below else None

    def cpu(members: int, nbytes: int, name: str) -> float | None:
        turns = samples.get((members, nbytes, name))
        return cpu_s(turns) / (2 * (members - 1) * nbytes) * 1e9 if turns else None

    table("median, ms", [*variants, "others busy"], milliseconds)
    ratios = [f"gloo / {one}" for one in ours if "gloo" in variants]
    whole = [one for one in ours if one not in CODECS]
    ratios += [f"{one} / {floor}" for floor in FLOORS if floor in variants for one in whole]
    if ratios:
        table("ratios", ratios, ratio)
    table("CPU seconds per moved GB of fp32, all members", variants, cpu)


def document(
    args: argparse.Namespace, samples: Samples, others: dict[tuple[int, int], float], load: float
) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "rows": [
            {
                "members": members,
                "bytes": nbytes,
                "variant": variant,
                "median_s": median_s(turns),
                "cpu_s_per_op": cpu_s(turns),
                "others_busy_cores": others[members, nbytes],
                "turns": turns,
            }
            for (members, nbytes, variant), turns in samples.items()
        ],
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="1KiB, 16MiB, 268435456, ...")
    parser.add_argument("--codec-sizes", nargs="+", default=["256MiB"], help="of the codecs")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="all that there are")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--iterations", type=int, help="of a turn; not set: by the size")
    parser.add_argument("--floor", type=Path, default=FLOOR, help="the native program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all raw samples")
    args = parser.parse_args(arguments)
    try:
        args.sizes = [parse_size(text) for text in args.sizes]
        args.codec_sizes = [parse_size(text) for text in args.codec_sizes]
    except AtollError as error:
        parser.error(str(error))
    if any(nbytes % 4 for nbytes in args.sizes):
        parser.error("--sizes: whole numbers of 4 bytes, the vectors are fp32")
    if min(args.members) < 2 or max(args.members) > 8:
        parser.error("--members: from 2 to 8")
    if args.turns < 1 or not 1 <= (args.iterations or 1) <= MOST_IN_A_TURN:
        parser.error(f"--turns: at least 1; --iterations: from 1 to {MOST_IN_A_TURN}")
    reasons = {name: missing(name, args.floor) for name in args.variants or VARIANTS}
    for name, reason in reasons.items():
        if reason and args.variants:
            parser.error(f"--variants {name}: {reason}")
        if reason:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    args.variants = [name for name, reason in reasons.items() if not reason]
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    # Told to end, it ends its processes too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load = os.getloadavg()[0]
    samples: Samples = defaultdict(list)
    others: dict[tuple[int, int], float] = {}
    try:
        for members in args.members:
            asyncio.run(measure_members(members, args, samples, others))
    except (GroupError, AtollError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    show(samples, others, args.variants)
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")
    if args.json is not None:
        args.json.write_text(json.dumps(document(args, samples, others, load)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
