"""Recovery beside TorchFT's, averaging beside hivemind's: the same harness, the same machine.

    make bench-peers             (or: .venv/bin/python bench/python/peers/compare.py --cases kill)
    make bench-peers PEERS_ARGS="--libraries atoll torchft-fast --replicas 3 --events 10"

Real replicas train a small model without a pause. `kill`: one gets SIGKILL; until the slowest
survivor's first step that committed without it. Then a new one, whose imports are done, joins:
`rejoin` is until its first step in which all take part, `pause` the survivors' longest gap between
two commits meanwhile. `stop`: the same as kill with SIGSTOP, where all others wait for its part of
a collective. `coordinator`: it is killed, and started again at its port 2 s later; the replicas'
longest gap between two commits from the kill to 3 s after they go on (`gap`), and in as long a
time before it (`calm`). `average`: 64 MiB of fp32, everybody's call to its end.

Each case adds to DIR/CASE-LIBRARY-REPLICAS.json; `report.py` makes a page of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from averaging import AVERAGERS, average
from job import Job, JobEnded, longest_gap_s, running
from libraries import LIBRARIES, ROOT, Library
from report import write

# Between an event's end and the next event: nothing of the last one goes on.
CALM_S = 1.5
# Until a coordinator is started again, and how long its job is watched afterwards.
AWAY_S = 2.0
WATCHED_S = 3.0
LONGEST_S = 130.0

DEFAULT = ["atoll", "torchft", "torchft-fast"]

Found = dict[str, list[Any]]
"""Samples by what was measured, in seconds; `ended`: texts."""


async def lost(job: Job, case: str, chosen: random.Random) -> float:
    """Seconds from the signal to one replica to the slowest survivor's next step without it."""
    victim = job.replicas.pop(chosen.randrange(len(job.replicas)))
    try:
        if case == "kill":
            began = time.monotonic()
            os.kill(victim.process.pid, signal.SIGKILL)
        else:
            os.kill(victim.process.pid, signal.SIGUSR1)
            await job.until(lambda: victim.records.stopped_s > 0)
            began = victim.records.stopped_s
        left = len(job.replicas)
        await job.until(lambda: job.firsts(began, left) is not None, LONGEST_S)
        firsts = job.firsts(began, left)
        assert firsts is not None
        return max(firsts) - began
    finally:
        await victim.end()


async def rejoined(job: Job) -> Found:
    spare = await job.spawn()
    try:
        await asyncio.sleep(CALM_S)
        survivors = list(job.replicas)
        since = time.monotonic()
        await job.join(spare)
        await job.formed()
    except BaseException:
        await spare.end()
        raise
    rows = spare.records.newest()
    whole = rows[rows[:, 1] == len(job.replicas)]
    return {
        "rejoin": [float(whole[0, 0]) - spare.records.began_s],
        "pause": [longest_gap_s(survivors, since)],
    }


async def restarted(job: Job) -> Found:
    since = time.monotonic()
    await asyncio.sleep(AWAY_S + WATCHED_S)
    calm = longest_gap_s(job.replicas, since)
    since = time.monotonic()
    await job.kill_coordinator()
    await asyncio.sleep(AWAY_S)
    await job.start_coordinator()
    back = time.monotonic()
    await job.until(lambda: all(one.records.newest(1)[-1, 0] > back for one in job.replicas))
    await asyncio.sleep(WATCHED_S)
    gap = longest_gap_s(job.replicas, since)
    return {"calm": [calm], "gap": [gap]}


async def measure(
    case: str, library: Library, replicas: int, args: argparse.Namespace
) -> AsyncIterator[Found]:
    """What each event has given, until there were `args.events`, or four have ended the job."""
    chosen = random.Random(args.seed)
    done, ended = 0, 0
    while done < args.events and ended < 4:
        try:
            async with running(library, replicas) as job:
                while done < args.events:
                    done += 1
                    await asyncio.sleep(CALM_S + chosen.random() * 0.1)
                    found = {"normal": [job.normal_s()]}
                    if case == "coordinator":
                        yield found | await restarted(job)
                    else:
                        found[case] = [await lost(job, case, chosen)]
                        yield found | await rejoined(job)
        except JobEnded as error:
            ended += 1
            yield {"ended": [str(error)]}
        except TimeoutError:
            ended += 1
            yield {"ended": [f"no commit within {LONGEST_S:.0f} s"]}


def shown(case: str, library: str, replicas: int, found: Found) -> None:
    texts = [f"ended: {text}" for text in found.pop("ended", [])]
    texts += [f"{name} {values[-1] * 1e3:.1f} ms" for name, values in found.items()]
    print(f"{case}, {library}, {replicas}: {', '.join(texts)}", file=sys.stderr, flush=True)


def keep(folder: Path, case: str, library: str, replicas: int, found: Found) -> None:
    """Adds what was found to what the file holds."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case}-{library}-{replicas}.json"
    held: Found = json.loads(path.read_text())["found"] if path.exists() else {}
    merged = held | {name: held.get(name, []) + values for name, values in found.items()}
    whole = {"case": case, "library": library, "replicas": replicas, "found": merged}
    path.write_text(json.dumps(whole, indent=1) + "\n")


async def each(case: str, name: str, replicas: int, args: argparse.Namespace) -> None:
    """Measures one row, and keeps each event as soon as it is over."""
    if case == "average":
        found = await average(name, replicas, args.events)
        keep(args.results, case, name, replicas, found)
        shown(case, name, replicas, found)
        return
    async for found in measure(case, LIBRARIES[name], replicas, args):
        keep(args.results, case, name, replicas, found)
        shown(case, name, replicas, found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cases = ["kill", "stop", "coordinator", "average"]
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    parser.add_argument(
        "--libraries", nargs="+", choices=LIBRARIES, default=["atoll", "torchft", "torchft-fast"]
    )
    parser.add_argument("--averagers", nargs="+", choices=AVERAGERS, default=[*AVERAGERS])
    parser.add_argument("--replicas", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/peers")
    args = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", file=sys.stderr)
    for case in args.cases:
        for count in args.replicas:
            for name in args.averagers if case == "average" else args.libraries:
                asyncio.run(each(case, name, count, args))
    write(args.results)


if __name__ == "__main__":
    main()
