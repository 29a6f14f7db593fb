"""How long the others wait when a member dies or freezes, and a joiner until it takes part.

    make bench-recovery              (or: .venv/bin/python bench/python/recovery.py)
    make bench-recovery RECOVERY_ARGS="--members 3 --sizes 1MiB --events 50 --kinds kill"

Real islands all-reduce without a pause, with default settings. One of them is killed (SIGKILL) or
frozen (SIGSTOP), and all others' first commit in a later view is awaited: the slowest counts. Then
a new island joins, whose imports are done: to its first commit from the call of join(). Each row
says what an undisturbed op took in the same moments, and how long the members' longest gap between
two commits was while somebody joined (pause). With --state-mib members share a state, which the
joiner fetches first; the fetch's rate is a row of its own. With --elsewhere whoever is killed gives
back its memory with what the others leave of the processors, as if it had run on another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from coordinating import coordinating
from recovery_worker import RECORDS, open_records
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from atoll_launcher.measure.bench_request import parse_size, shown_size

WORKER = Path(__file__).with_name("recovery_worker.py")
IMPORT_S = 120.0
FORM_S = 30.0
# Between an event's end and the next event: the view has settled, links are not being measured.
CALM_S = 1.5
NORMAL_OPS = 50
# Between two looks at the records. They tell the time, so rare looks only leave the others alone.
LOOK_S = 0.01


@dataclass(slots=True)
class Island:
    name: str
    process: asyncio.subprocess.Process
    head: np.memmap
    records: np.memmap

    def times(self) -> np.ndarray:
        """The newest commits, oldest first: (time, epoch, members)."""
        count = int(self.head[1])
        first = max(0, count - RECORDS + 8)
        return np.array(self.records)[np.arange(first, count) % RECORDS]

    def last(self) -> tuple[float, float, float]:
        count = int(self.head[1])
        when, epoch, members = self.records[(count - 1) % RECORDS] if count else (0.0, 0.0, 0.0)
        return float(when), float(epoch), float(members)

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Job:
    """Islands that all-reduce, and one more that waits to join."""

    def __init__(self, nbytes: int, coordinator: str, folder: Path, state_mib: int) -> None:
        self.islands: list[Island] = []
        self._nbytes = nbytes
        self._state_mib = state_mib
        self._coordinator = coordinator
        self._folder = folder
        self._number = 0

    async def spawn(self) -> Island:
        """Start a process and wait until it could join."""
        self._number += 1
        name = f"island-{self._number}"
        path = self._folder / f"{name}.times"
        head, records = open_records(path)
        with (self._folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(WORKER), str(self._nbytes), str(path), str(self._state_mib)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "ATOLL_COORDINATOR": self._coordinator,
                    "ATOLL_JOB": "recovery",
                    "ATOLL_ISLAND": name,
                },
            )
        island = Island(name, process, head, records)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), IMPORT_S)
        if line != b"imported\n":
            raise SystemExit(f"recovery: {name} did not start; its log:\n{self.complaint(name)}")
        return island

    def complaint(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-2000:]

    async def join(self, island: Island) -> None:
        assert island.process.stdin is not None
        island.process.stdin.write(b"go\n")
        await island.process.stdin.drain()
        self.islands.append(island)

    async def formed(self, patience_s: float) -> None:
        """Wait until all islands commit together."""
        await self._until(
            lambda: all(one.last()[2] == len(self.islands) for one in self.islands), patience_s
        )

    async def committed_after(self, epoch: float, patience_s: float) -> list[float]:
        """Wait until every island has committed in a later view; when each first did."""
        await self._until(lambda: all(one.last()[1] > epoch for one in self.islands), patience_s)
        firsts = []
        for island in self.islands:
            times = island.times()
            firsts.append(float(times[times[:, 1] > epoch][0, 0]))
        return firsts

    async def _until(self, condition: object, patience_s: float) -> None:
        end = time.monotonic() + patience_s
        while not condition():  # type: ignore[operator]
            for island in self.islands:
                if island.process.returncode is not None:
                    raise SystemExit(f"recovery: an island ended: {self.complaint(island.name)}")
            if time.monotonic() > end:
                raise SystemExit(f"recovery: no commit within {patience_s:.0f} s")
            await asyncio.sleep(LOOK_S)

    def pause_s(self, epoch: float) -> float:
        """The members' longest gap between the last commit in view `epoch` and the next one."""
        gaps = []
        for island in self.islands:
            times = island.times()
            later = times[:, 1] > epoch
            if later.any() and not later[0]:
                at = int(np.argmax(later))
                gaps.append(float(times[at, 0] - times[at - 1, 0]))
        return max(gaps, default=float("nan"))

    def normal_s(self) -> float:
        """An undisturbed op of the newest ones, median over all islands."""
        gaps = [np.diff(one.times()[-NORMAL_OPS:, 0]) for one in self.islands]
        return float(np.median(np.concatenate(gaps)))


def give_way(pid: int) -> None:
    """Threads of that process run when nobody else would."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


@contextlib.asynccontextmanager
async def running(members: int, nbytes: int, state_mib: int = 0) -> AsyncIterator[Job]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with coordinating("recovery", min_islands=2) as coordinator:
            job = Job(nbytes, coordinator.address, folder, state_mib)
            try:
                for island in [await job.spawn() for _ in range(members)]:
                    await job.join(island)
                await job.formed(FORM_S)
                yield job
            finally:
                for island in job.islands:
                    await island.end()


async def measure(
    kind: str, members: int, nbytes: int, events: int, state_mib: int, *, elsewhere: bool
) -> dict[str, list[float]]:
    """Kill or freeze, and let another join, `events` times."""
    found: dict[str, list[float]] = {"normal": [], kind: [], "join": [], "pause": []}
    if state_mib:
        found["fetch"] = []
    chosen = random.Random(members * 1000 + events)
    async with running(members, nbytes, state_mib) as job:
        for number in range(events):
            spare = await job.spawn()
            await job.formed(FORM_S)
            await asyncio.sleep(CALM_S + chosen.random() * 0.1)
            normal = job.normal_s()
            found["normal"].append(normal)
            victim = job.islands.pop(chosen.randrange(members))
            epoch = victim.last()[1]
            if elsewhere:
                give_way(victim.process.pid)
            began = time.monotonic()
            os.kill(victim.process.pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            firsts = await job.committed_after(epoch, FORM_S)
            found[kind].append(max(firsts) - began)
            await victim.end()
            await asyncio.sleep(CALM_S)
            epoch = job.islands[0].last()[1]
            await job.join(spare)
            await job.formed(FORM_S)
            found["pause"].append(job.pause_s(epoch))
            if state_mib:
                found["fetch"].append(float(spare.head[2]))
            found["join"].append(float(spare.times()[0, 0] - spare.head[0]))
            if sys.stderr.isatty():
                print(f"\r{kind} {members} {nbytes}: {number + 1}", end="", file=sys.stderr)
    return found


def shown(rows: list[tuple[str, int, int, dict[str, list[float]]]], state_mib: int) -> None:
    table = Table(box=MARKDOWN)
    for name in ("event", "members", "size", "n", "normal op", "median", "worst", "beyond normal"):
        table.add_column(name, justify="right", no_wrap=True)
    for _, members, nbytes, found in rows:
        normal = statistics.median(found["normal"])
        for event in [name for name in found if name != "normal"]:
            values = found[event]
            median = statistics.median(values)
            texts = [f"{value * 1e3:.1f} ms" for value in (normal, median, max(values))]
            beyond = f"{(median - normal) * 1e3:+.1f} ms"
            size = shown_size(nbytes)
            if event == "fetch":
                beyond = f"{(state_mib << 20) / median / 1e9:.2f} GB/s"
            table.add_row(event, str(members), size, str(len(values)), *texts, beyond)
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=[4 << 10, 1 << 20, 64 << 20])
    parser.add_argument(
        "--kinds", nargs="+", choices=["kill", "freeze"], default=["kill", "freeze"]
    )
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--state-mib", type=int, default=0, help="shared state of the members")
    parser.add_argument(
        "--elsewhere", action="store_true", help="the victim gives its memory back out of the way"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all raw samples")
    args = parser.parse_args()
    if min(args.members) < 3:
        parser.error("--members: at least 3, so that two are left")
    print(f"load before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    rows = []
    for kind in args.kinds:
        for members in args.members:
            for nbytes in args.sizes:
                found = asyncio.run(
                    measure(
                        kind,
                        members,
                        nbytes,
                        args.events,
                        args.state_mib,
                        elsewhere=args.elsewhere,
                    )
                )
                rows.append((kind, members, nbytes, found))
    shown(rows, args.state_mib)
    print(f"load after: {os.getloadavg()[0]:.1f}")
    if args.json:
        raw = [{"event": k, "members": m, "bytes": b, **found} for k, m, b, found in rows]
        args.json.write_text(json.dumps(raw))


if __name__ == "__main__":
    main()
