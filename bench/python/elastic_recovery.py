"""How long an elastic island's workers wait when one of them is killed.

    make bench-elastic              (ELASTIC_ARGS="--workers 4 --kills 10")

Real workers train the GPT of examples/elastic_gpt.py. When all vshards have a backup, a worker is
killed (SIGKILL) at a random moment, and the slowest survivor's next step is awaited; then a new
worker, whose imports are done, takes its place. *Recovery* is the time from the kill to the end of
that step, less an undisturbed one (the median of those before): negative if the kill came late in a
step that cost little more. *Extra* is how much longer the whole step took. Its parts are those of
the slowest survivor (docs/elastic.md), and before them *detect*: from the kill until it heard of
the loss. The losses are compared with one another: all workers must have had the same at every
step. With --append, what several runs have found is summed up together. With --elsewhere whoever is
killed gives back its memory with what the others leave of the processors, as if it had run on
another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from coordinating import coordinating
from recovery import give_way

PATIENCE_S = 120.0
CALM_STEPS = 8
"""Undisturbed steps before a kill: links are measured and compared with."""
LINE_BYTES = 400
"""A line of a log is shorter."""


def work(coordinator: str, name: str, out: Path, args: argparse.Namespace) -> None:
    """One worker: a line of time, step, loss, workers and protection for each step."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    import elastic_gpt
    import torch

    import atoll

    torch.set_num_threads(1)
    config = elastic_gpt.Config(layers=args.layers)
    session = atoll.join({"coordinator": coordinator, "job": "elastic", "island": name})
    island = atoll.ElasticIsland(
        session,
        layers=elastic_gpt.make_layers(config, 0.1),
        micro_batches=args.micro_batches,
        pipeline=args.pipeline,
        batch=elastic_gpt.make_batch(config, args.sequences),
        loss=elastic_gpt.loss,
        tokens=args.micro_batches * args.sequences * config.block,
    )
    with (out / f"{name}.log").open("w", buffering=1) as log:
        while True:
            loss = island.train_step()
            layout = island.layout
            assert layout is not None
            protected = all(backup for row in layout.backups for backup in row)
            sent = island.sent_bytes
            line = [time.monotonic(), island.step, loss, len(layout.workers), protected]
            line += [dict(island.recovery), sent.get("critical", 0), sent.get("state", 0)]
            log.write(json.dumps(line) + "\n")


def lines(out: Path, name: str) -> list[list[Any]]:
    """What a worker has written so far; its last line may be half there."""
    path = out / f"{name}.log"
    return _whole(path.read_text().splitlines(keepends=True)) if path.exists() else []


def newest(out: Path, name: str) -> list[list[Any]]:
    """Its last CALM_STEPS lines: who looks often must not use up what others need."""
    path = out / f"{name}.log"
    if not path.exists():
        return []
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - (CALM_STEPS + 2) * LINE_BYTES))
        first, *rest = log.read().decode().splitlines(keepends=True) or [""]
    return _whole(rest if not first.startswith("[") else [first, *rest])[-CALM_STEPS:]


def _whole(found: list[str]) -> list[list[Any]]:
    return [json.loads(line) for line in found if line.endswith("\n")]


Line = list[Any]


def around(killed_s: float, own: list[Line], workers: int) -> tuple[Line, Line]:
    """The lines of the steps before and after the kill: the second one's layout lacks the dead."""
    for before, after in itertools.pairwise(own):
        if after[0] > killed_s and after[3] < workers:
            return before, after
    raise ValueError("no step ended after the kill")


def await_(what: str, condition: Callable[[], bool], *, patience_s: float = PATIENCE_S) -> None:
    end_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what}: not within {patience_s:g} s")
        time.sleep(0.02)


def of_kill(
    killed_s: float, step_s: float, logs: list[list[Line]], workers: int
) -> dict[str, float]:
    """Seconds of everything, by the slowest survivor; and bytes."""
    both = [around(killed_s, own, workers) for own in logs]
    end_s = max(after[0] for _, after in both)
    slowest = next(after for _, after in both if after[0] == end_s)
    parts = slowest[5]
    return {
        "recovery": end_s - killed_s - step_s,
        "extra": end_s - max(before[0] for before, _ in both) - step_s,
        "detect": end_s - killed_s - sum(parts.values()),
        **parts,
        "critical bytes": sum(after[6] - before[6] for before, after in both),
    }


def measure(args: argparse.Namespace, coordinator: str, out: Path) -> list[dict[str, float]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "atoll.session", "atoll.elastic.island"])
    rng = random.Random(args.seed)
    living: dict[str, BaseProcess] = {}
    born = 0

    def start() -> None:
        nonlocal born
        name = f"w{born}"
        born += 1
        living[name] = context.Process(target=work, args=(coordinator, name, out, args))
        living[name].start()

    def calm() -> bool:
        """All have made undisturbed steps lately in a whole and protected layout."""
        last = [newest(out, name) for name in living]
        return all(
            len(own) == CALM_STEPS and all(line[3] == args.workers and line[4] for line in own)
            for own in last
        )

    found = []
    try:
        for _ in range(args.workers):
            start()
        ends_s = time.monotonic() + args.seconds
        for kill in range(args.kills):
            await_("calm", calm)
            if time.monotonic() > ends_s:
                break
            time.sleep(rng.random() * 0.5)
            name = rng.choice(sorted(living))
            victim = living.pop(name)
            before = [line[0] for line in newest(out, min(living))]
            step_s = statistics.median(b - a for a, b in itertools.pairwise(before))
            assert victim.pid is not None
            if args.elsewhere:
                give_way(victim.pid)
            killed_s = time.monotonic()
            os.kill(victim.pid, signal.SIGKILL)
            # The step that was running when it was killed, and ended with the survivors.
            await_("recovery", lambda: all(newest(out, n)[-1][3] < args.workers for n in living))
            logs = [lines(out, survivor) for survivor in living]
            found.append(of_kill(killed_s, step_s, logs, args.workers))
            shown = ", ".join(
                f"{k} {v * 1e3:.0f}" for k, v in found[-1].items() if "bytes" not in k
            )
            print(f"kill {kill + 1}: {shown} ms; a step {step_s * 1e3:.0f} ms", flush=True)
            victim.join()
            start()
    finally:
        for process in living.values():  # all of them, before the first is waited for
            process.kill()
        for process in living.values():
            process.join()
    losses: dict[int, set[float]] = {}
    for number in range(born):
        for _, step, loss, *_ in lines(out, f"w{number}"):
            losses.setdefault(step, set()).add(loss)
    torn = [step for step, different in losses.items() if len(different) > 1]
    print(f"{len(losses)} steps, at {len(torn)} of them workers had different losses")
    return found


async def hosted_measure(args: argparse.Namespace, out: Path) -> list[dict[str, float]]:
    async with coordinating("elastic", args.workers) as coordinator:
        return await asyncio.to_thread(measure, args, coordinator.address, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--workers", type=int, default=4)
    add("--kills", type=int, default=10)
    add("--pipeline", type=int, default=2)
    add("--layers", type=int, default=4)
    add("--micro-batches", type=int, default=8)
    add("--sequences", type=int, default=2)
    add("--seed", type=int, default=1)
    add("--seconds", type=float, default=1e9, help="no kill begins later")
    add("--elsewhere", action="store_true", help="the dead's memory is given back out of the way")
    add("--append", type=Path, help="a file of kills: these are added, and all in it summed up")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(hosted_measure(args, Path(folder)))
    if args.append is not None:
        with args.append.open("a") as file:
            file.writelines(json.dumps(kill) + "\n" for kill in found)
        found = [json.loads(line) for line in args.append.read_text().splitlines()]
    for what in found[0]:
        values = [kill[what] for kill in found]
        if what.endswith("bytes"):
            print(f"{what}: {sum(values)} in {len(values)} kills")
            continue
        median, worst = statistics.median(values), max(values)
        print(f"{what}: median {median * 1e3:.0f} ms, worst {worst * 1e3:.0f} ms of {len(values)}")


if __name__ == "__main__":
    main()
