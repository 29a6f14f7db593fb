"""The backend `atoll` of torch.distributed beside gloo, on this machine, in one run.

    make bench-backend                              (or: .venv/bin/python bench/python/backend.py)
    make bench-backend BACKEND_ARGS="--members 2 --sizes 1KiB --ops all_reduce --json raw.json"
    ... --device cuda         tensors of an accelerator, which all members share

The backends take turns, size by size and several times over, so that what the machine does to one
it does to all. Judge by the ratios; docs/performance.md says how. `tcp` is ours without shared
memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from allreduce import cpu_s, median_s, say
from groups import Group, GroupError, torch_group
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from atoll.errors import AtollError
from atoll_launcher.measure.bench_request import parse_size, shown_size

SIZES = ["1KiB", "16KiB", "256KiB", "1MiB", "16MiB", "256MiB"]
OPS = [
    "all_reduce",
    "broadcast",
    "all_gather_into_tensor",
    "reduce_scatter_tensor",
    "all_to_all_single",
    "send_recv",
]
BACKENDS = ["gloo", "atoll", "tcp"]
TURNS = 5
MOST_OF_OTHERS = 16 << 20

# (op, members, bytes, backend) -> what each turn gave
Samples = dict[tuple[str, int, int, str], list[dict[str, Any]]]


def iterations_for(nbytes: int) -> int:
    """Return how many ops a turn measures."""
    return max(1, min(50, (32 << 20) // nbytes))


async def measure_members(members: int, args: argparse.Namespace, samples: Samples) -> None:
    async with contextlib.AsyncExitStack() as stack:
        groups: dict[str, Group] = {
            name: await stack.enter_async_context(torch_group(name, members, args.device))
            for name in args.backends
        }
        for op in args.ops:
            for nbytes in args.sizes:
                if op != "all_reduce" and nbytes > MOST_OF_OTHERS:
                    continue
                for turn in range(args.turns):
                    # Nobody always comes after the same one.
                    first = turn % len(args.backends)
                    for name in args.backends[first:] + args.backends[:first]:
                        say(f"{op}, {members} members, {shown_size(nbytes)}, turn {turn + 1}")
                        one = await groups[name].measure(
                            nbytes, iterations_for(nbytes), 3 if turn == 0 else 1, None, op
                        )
                        samples[op, members, nbytes, name].append(one)
    say("")


def show(samples: Samples, backends: list[str]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    ours = [name for name in backends if name != "gloo"]
    shown = Table(box=MARKDOWN)
    for name in ("op", "members", "size"):
        shown.add_column(name, no_wrap=True)
    columns = [f"{name}, ms" for name in backends]
    if "gloo" in backends:
        columns += [f"gloo / {name}" for name in ours]
        columns += [f"gloo / {name}, CPU" for name in ours]
    for name in columns:
        shown.add_column(name, justify="right", no_wrap=True)
    for op, members, nbytes in dict.fromkeys(key[:3] for key in samples):
        turns = {name: samples[op, members, nbytes, name] for name in backends}
        values = [median_s(turns[name]) * 1e3 for name in backends]
        if "gloo" in backends:
            values += [median_s(turns["gloo"]) / median_s(turns[name]) for name in ours]
            values += [cpu_s(turns["gloo"]) / cpu_s(turns[name]) for name in ours]
        texts = [f"{value:.3g}" for value in values]
        shown.add_row(op, str(members), shown_size(nbytes), *texts)
    console.print(shown)


def document(samples: Samples, load: float) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "rows": [
            {
                "op": op,
                "members": members,
                "bytes": nbytes,
                "backend": name,
                "median_s": median_s(turns),
                "cpu_s_per_op": cpu_s(turns),
                "turns": turns,
            }
            for (op, members, nbytes, name), turns in samples.items()
        ],
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="1KiB, 16MiB, 268435456, ...")
    parser.add_argument("--ops", nargs="+", choices=OPS, default=OPS)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the tensors")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all raw samples")
    args = parser.parse_args(arguments)
    try:
        args.sizes = [parse_size(text) for text in args.sizes]
    except AtollError as error:
        parser.error(str(error))
    if any(nbytes % 64 for nbytes in args.sizes):
        parser.error("--sizes: whole numbers of 64 bytes")
    if min(args.members) < 2 or max(args.members) > 8:
        parser.error("--members: from 2 to 8")
    if args.turns < 1:
        parser.error("--turns: at least 1")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    # Told to end, it ends its processes too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load = os.getloadavg()[0]
    samples: Samples = defaultdict(list)
    try:
        for members in args.members:
            asyncio.run(measure_members(members, args, samples))
    except (GroupError, AtollError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    show(samples, args.backends)
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")
    if args.json is not None:
        args.json.write_text(json.dumps(document(samples, load)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
