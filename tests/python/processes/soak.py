"""Islands come and are killed for minutes, and nothing may break.

    make soak                       ten minutes
    make soak SOAK_ARGS="--minutes 1 --seed 7"

Every 0.5 to 2 s an island is started (60 %) or killed with SIGKILL (40 %); 2 to 10 of them
all-reduce all the time (soak_island.py says what). It fails when no op commits for 10 s, when an
island ends by itself or sums are wrong, when two islands' states differ after the same op, and when
memory or descriptors grow. Exit code 1 and a line for each thing that was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from soak_island import main as island_main

from atoll_launcher.islands.embedded import EmbeddedCoordinator, hosted

FEWEST, MOST = 2, 10
STARTED_OF_100 = 60
PAUSE_S = (0.5, 2.0)
PATIENCE_S = 10.0
START_S = 60.0
# All that an island imports; not soak_island, which the fork server does not find.
PRELOADED = ["torch", "xxhash", "atoll.control.client", "atoll.session", "atoll.state.tensors"]
# An island's memory has settled when it has trained for so long; what it may grow by after that.
SETTLED_S = 15.0
SETTLED_OPS = 200
GROWTH_BYTES = 96 << 20
GROWTH_DESCRIPTORS = 8
LINK_DESCRIPTORS = 4  # for each island that there is more


@dataclass(slots=True)
class Island:
    name: str
    process: BaseProcess
    journal: Path
    log: Path
    read: int = 0
    ops: int = 0
    trained_s: float = 0.0  # when its first op was seen
    settled: tuple[int, int, int] | None = None  # memory, descriptors, islands then
    born_s: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Result:
    ops: int = 0
    started: int = 0
    killed: int = 0
    compared: int = 0
    longest_pause_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def usage(pid: int) -> tuple[int, int]:
    """Return a process's own memory in bytes, and how many descriptors it has open."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    memory = next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))
    return memory, len(os.listdir(f"/proc/{pid}/fd"))


class Soak:
    def __init__(self, coordinator: str, folder: Path, seed: int) -> None:
        self.result = Result()
        self.islands: list[Island] = []
        self._anchor = ""  # lives to the end, to be watched
        self._coordinator = coordinator
        self._folder = folder
        self._random = random.Random(seed)
        # Forked from a process that has torch: a start costs milliseconds instead of seconds.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._digests: dict[int, str] = {}
        self._newest = -1
        self._committed_s = time.monotonic()

    def start(self) -> None:
        self.result.started += 1
        name = f"island-{self.result.started}"
        log, journal = self._folder / f"{name}.log", self._folder / f"{name}.journal"
        environment = {
            "ATOLL_COORDINATOR": self._coordinator,
            "ATOLL_JOB": "soak",
            "ATOLL_ISLAND": name,
            "ATOLL_METRICS_PORT": "-1",
        }
        process = self._context.Process(target=island_main, args=(environment, log, journal))
        process.start()
        self.islands.append(Island(name, process, journal, log))
        if self.result.started == 2:
            self._anchor = name

    def kill(self) -> None:
        victims = [one for one in self.islands if one.name != self._anchor]
        victim = self._random.choice(victims)
        pid = victim.process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        victim.process.join()
        self._read(victim)
        self.islands.remove(victim)
        self.result.killed += 1

    def act(self) -> None:
        """Start one or kill one, as chance will have it."""
        training = [one for one in self.islands if one.read]
        starts = self._random.random() * 100 < STARTED_OF_100
        if len(self.islands) >= MOST:
            starts = False
        if len(training) <= FEWEST or len(self.islands) <= FEWEST:
            starts = len(self.islands) < MOST
        if starts:
            self.start()
        elif len(self.islands) > FEWEST:
            self.kill()

    def pause_s(self) -> float:
        return self._random.uniform(*PAUSE_S)

    def look(self) -> None:
        """Read what the islands have written, and complain."""
        now = time.monotonic()
        before = self._newest
        for island in list(self.islands):
            self._read(island)
            if not island.process.is_alive():
                self.islands.remove(island)
                tail = island.log.read_text(errors="replace").strip()[-1500:]
                code = island.process.exitcode
                self._complain(f"{island.name} ended by itself ({code}):\n{tail}")
            elif not island.read and now - island.born_s > START_S:
                self._complain(f"{island.name} has not committed an op after {START_S:.0f} s")
                island.born_s = now
            elif (
                island.settled is None
                and island.ops >= SETTLED_OPS
                and now - island.trained_s > SETTLED_S
            ):
                island.settled = (*usage(island.process.pid or 0), len(self.islands))
        if self._newest > before >= 0:
            self.result.longest_pause_s = max(self.result.longest_pause_s, now - self._committed_s)
        if self._newest > before:
            self._committed_s = now
        elif now - self._committed_s > PATIENCE_S and self.result.ops:
            self._complain(f"no op was committed for {PATIENCE_S:.0f} s")
            self._committed_s = now

    def check_growth(self) -> None:
        for island in self.islands:
            if island.settled is None or not island.process.is_alive():
                continue
            memory, descriptors = usage(island.process.pid or 0)
            age_s = time.monotonic() - island.born_s
            if memory - island.settled[0] > GROWTH_BYTES:
                grown = (memory - island.settled[0]) / 1e6
                self._complain(f"{island.name} has grown by {grown:.0f} MB in {age_s:.0f} s")
            more = max(0, len(self.islands) - island.settled[2])
            if descriptors - island.settled[1] > GROWTH_DESCRIPTORS + LINK_DESCRIPTORS * more:
                text = f"{descriptors} descriptors, {island.settled[1]} before"
                self._complain(f"{island.name} has {text}")

    def end(self) -> None:
        for island in self.islands:
            island.process.kill()
            island.process.join()

    def _read(self, island: Island) -> None:
        try:
            with island.journal.open() as file:
                file.seek(island.read)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind("\n") + 1]  # a SIGKILL may cut a line
        if whole and not island.read:
            island.trained_s = time.monotonic()
        island.read += len(whole)
        island.ops += whole.count("\n")
        for line in whole.splitlines():
            number, digest = line.split()
            op = int(number)
            self._newest = max(self._newest, op)
            self.result.ops = self._newest + 1
            known = self._digests.setdefault(op, digest)
            self.result.compared += 1
            if known != digest:
                self._complain(f"{island.name}: another state than others after op {op}")

    def _complain(self, text: str) -> None:
        self.result.problems.append(text)


async def run(minutes: float, seed: int, folder: Path, *, quiet: bool = False) -> Result:
    """Return what happened; stops at the first problem."""
    coordinator = EmbeddedCoordinator(
        job="soak", listen="127.0.0.1:0", min_islands=2, store="memory", metrics_port=-1
    )
    async with hosted(coordinator) as host:
        soak = Soak(host.address, folder, seed)
        own = usage(os.getpid())
        end = time.monotonic() + minutes * 60
        try:
            for _ in range(3):
                soak.start()
            due = None  # until all of these train
            while time.monotonic() < end and not soak.result.problems:
                soak.look()
                trained = sum(1 for one in soak.islands if one.read)
                if due is None and trained == 3:
                    due = time.monotonic()
                if due is not None and time.monotonic() >= due:
                    await asyncio.to_thread(soak.act)
                    due = time.monotonic() + soak.pause_s()
                if not quiet and sys.stderr.isatty():
                    result = soak.result
                    print(
                        f"\r{result.ops} ops, {trained} of {len(soak.islands)} islands, "
                        f"{result.started} started, {result.killed} killed ",
                        end="",
                        file=sys.stderr,
                    )
                await asyncio.sleep(0.1)
            soak.look()
            soak.check_growth()
            memory = usage(os.getpid())[0] - own[0]
            # The digests of all ops are the soak's own.
            if memory > GROWTH_BYTES + 400 * soak.result.ops:
                soak.result.problems.append(f"the coordinator has grown by {memory / 1e6:.0f} MB")
        finally:
            soak.end()
        return soak.result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="not set: another one each time")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if args.seed is None else args.seed
    folder = Path(tempfile.mkdtemp(prefix="atoll-soak-"))
    print(f"seed {seed}; logs in {folder}", flush=True)
    result = asyncio.run(run(args.minutes, seed, folder))
    print(
        f"\n{result.ops} ops committed, {result.started} islands started, {result.killed} killed, "
        f"{result.compared} states compared, longest pause {result.longest_pause_s:.1f} s"
    )
    for problem in result.problems:
        print(f"FAILED: {problem}")
    if not result.problems:
        shutil.rmtree(folder)
    sys.exit(1 if result.problems else 0)


if __name__ == "__main__":
    main()
