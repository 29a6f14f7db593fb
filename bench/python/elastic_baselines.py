"""What an elastic island gains over simpler answers to a loss, with simulated compute.

    make bench-elastic              (BASELINE_ARGS="--modes elastic restart --kills 2")

Real workers, links and SIGKILLs; a layer's pass is a sleep (twice as long backward), so that more
workers than cores are as quick as they would be with cores of their own. A worker is killed at a
random moment when all vshards have a backup.

    elastic   the layout is improved after the loss: layers move between stages
    reroute   the dead's micro-batches go to the others of its stage, layers stay where they are
    drop      the dead's whole pipeline is left out: the step begins again with fewer workers and a
              smaller batch
    restart   all workers end and begin again from the last checkpoint on disk (every --every steps)

*Recovery*: from the kill to the end of the first step that was not done before, less an
undisturbed step. *Throughput*: micro-batches a second after the loss, by those before. A restart
comes back to full throughput; its new workers are there at once, their imports done.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from elastic_recovery import CALM_STEPS, around, await_, lines

from atoll_launcher.islands.embedded import EmbeddedCoordinator, hosted


def island_of(coordinator: str, name: str, args: argparse.Namespace) -> tuple[Any, Any]:
    """A worker's session and island: layers whose passes are sleeps."""
    import torch
    from torch import Tensor, nn

    import atoll
    from atoll.elastic.identity import key
    from atoll.elastic.keyed import generator

    torch.set_num_threads(1)

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            time.sleep(args.layer_ms / 3e3)
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            time.sleep(args.layer_ms / 1.5e3)
            return gradients[0]

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Linear(args.width, args.width)

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = x + self.weight(Slow.apply(x))  # type: ignore[no-untyped-call]
            return made

    def batch(step: int, micro_batch: int) -> tuple[Tensor, Tensor]:
        made = torch.rand(2, args.width, generator=generator(key(1, step, micro_batch)))
        return made[:1], made[1:]

    torch.manual_seed(1)
    session = atoll.join({"coordinator": coordinator, "job": "elastic", "island": name})
    island = atoll.ElasticIsland(
        session,
        layers=[Layer() for _ in range(args.layers)],
        micro_batches=args.micro_batches,
        pipeline=args.pipeline,
        batch=batch,
        loss=lambda y, target: (y - target).square().sum(),
        tokens=args.micro_batches,
        vshards=6,
    )
    return session, island


def work(coordinator: str, name: str, out: Path, mode: str, args: argparse.Namespace) -> None:
    """One worker: a line of time, step, loss, workers and protection for each step."""
    from atoll.elastic import member, placement

    def keep_cuts(layout: Any, spine: Any, costs: Any, **others: Any) -> Any:
        protect = mode != "drop"  # those left out are members without a place, and stay it
        return placement.place(
            layout.epoch + 1, layout.stages, spine, before=layout, protect=protect
        )

    if mode in ("reroute", "drop"):
        member.improved = keep_cuts
    _, island = island_of(coordinator, name, args)
    worker = island.member.worker
    if mode == "drop":
        member.recovery = dropping(island.member)
    if mode == "restart":
        restore(worker, out / "checkpoint")
    with (out / f"{name}.log").open("w", buffering=1) as log:
        while True:
            loss = island.train_step()
            layout = island.layout
            assert layout is not None
            if mode == "restart" and island.step % args.every == 0:
                save(worker, out / "checkpoint")
            protected = all(backup for row in layout.backups for backup in row)
            line = [time.monotonic(), island.step, loss, len(layout.workers), protected]
            log.write(json.dumps(line) + "\n")


def dropping(member: Any) -> Callable[..., Any]:
    """An answer to a loss: the workers at the dead's place in all stages are left out with their
    micro-batches, and the step begins again without these."""
    from atoll.elastic.placement import moves, place
    from atoll.elastic.recovery import current_holders, fresh, recovery
    from atoll.elastic.transition import _stages, cuts_of

    def dropped(layout: Any, reports: Any, spine: Any) -> Any:
        answer = recovery(layout, reports, spine)
        alive = {report.worker for report in reports}
        dead = next(iter(set(layout.workers) - alive), None)
        if dead is None:
            return answer  # the view has changed once more
        place_of = next(group.index(dead) for group in layout.groups if dead in group)
        groups = [(*group[:place_of], *group[place_of + 1 :]) for group in layout.groups]
        shares = len(layout.groups[0])
        fewer = replace(spine, micro_batches=spine.micro_batches * (shares - 1) // shares)
        member._spine = member.worker.spine = member._decision._spine = fewer
        if member.worker.step == answer.step:
            member.worker._begin_step()
        after = place(
            answer.layout.epoch,
            _stages(fewer, cuts_of(layout), groups),
            fewer,
            before=layout,
            keep_only=alive,
            balance=False,
            protect=False,
        )
        moved = moves(current_holders(reports, spine), after, fewer)
        if member.name not in after.workers:
            member.worker.owned, member.worker._shadows = {}, {}
        again = fresh(fewer, len(after.stages))
        return replace(answer, layout=after, moves=moved, redo=again)

    return dropped


def save(worker: Any, folder: Path) -> None:
    """What this worker owns, on disk for good; a step counts when all its vshards are there."""
    import torch

    place = folder / str(worker.step)
    place.mkdir(parents=True, exist_ok=True)
    for (layer, v), state in worker.owned.items():
        part = place / f"{layer}.{v}.part"
        torch.save([state.p, state.m, state.v], part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(place / f"{layer}.{v}")


def restore(worker: Any, folder: Path) -> None:
    """The newest complete step, if there is one, into a worker of the first layout."""
    import torch

    wanted = {f"{layer}.{v}" for layer, v in worker.spine.shards()}
    steps = [
        int(place.name)
        for place in (folder.iterdir() if folder.exists() else ())
        if wanted <= {path.name for path in place.iterdir()}
    ]
    if not steps:
        return
    worker.step = step = max(steps)
    for layer, v in worker.spine.shards():
        p, m, second = torch.load(folder / str(step) / f"{layer}.{v}")
        for table in (worker.owned, worker.shadows):
            if (layer, v) in table:
                state = table[layer, v]
                state.p.copy_(p)
                state.m.copy_(m)
                state.v.copy_(second)
                state.version = step
        if layer in worker.layers:
            worker.write_parameters((layer, v), p, step)


class Job:
    """Workers of one mode, as processes."""

    def __init__(
        self,
        coordinator: str,
        out: Path,
        mode: str,
        args: argparse.Namespace,
        work: Callable[[str, str, Path, str, argparse.Namespace], None] = work,
    ) -> None:
        self.out, self.mode, self.args = out, mode, args
        self._work = work
        self.coordinator = coordinator
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch", "atoll.session", "atoll.elastic.island"])
        self.living: dict[str, BaseProcess] = {}
        self._born = 0

    def start(self, count: int) -> None:
        for _ in range(count):
            name = f"w{self._born}"
            self._born += 1
            arguments = (self.coordinator, name, self.out, self.mode, self.args)
            self.living[name] = self._context.Process(target=self._work, args=arguments)
            self.living[name].start()

    def end(self, *names: str) -> None:
        ending = [self.living.pop(name) for name in names or tuple(self.living)]
        for process in ending:  # all of them, before the first is waited for
            process.kill()
        for process in ending:
            process.join()

    def steps(self) -> dict[str, list[list[Any]]]:
        gone = [name for name, process in self.living.items() if process.exitcode is not None]
        if gone:
            raise SystemExit(f"elastic_baselines: {', '.join(gone)} ended by themselves")
        return {name: lines(self.out, name) for name in self.living}

    def calm(self, workers: int, *, protected: bool = True) -> bool:
        return all(
            len(own) >= CALM_STEPS
            and all(line[3] == workers and line[4] >= protected for line in own[-CALM_STEPS:])
            for own in self.steps().values()
        )

    def step_s(self) -> float:
        own = next(iter(self.steps().values()))
        ends = [line[0] for line in own[-CALM_STEPS:]]
        return statistics.median(b - a for a, b in itertools.pairwise(ends))


Measured = TypeVar("Measured")

Found = tuple[float, float | None, float]
"""(recovery in seconds, throughput after a loss by that before, a step before in seconds); None
where it is not measured."""


def without_a_restart(job: Job, rng: random.Random) -> Found:
    args, dropped = job.args, job.mode == "drop"
    workers, shares = args.workers, args.workers // args.pipeline
    job.start(workers)
    await_("calm", lambda: job.calm(workers))
    before_s = job.step_s()
    time.sleep(rng.random() * before_s)
    # Of the last stage: it has no worker more than the others.
    victim = rng.choice(sorted(job.living))
    killed_s = time.monotonic()
    job.end(victim)
    left = workers - (args.pipeline if dropped else 1)
    await_("calm again", lambda: job.calm(left, protected=not dropped))
    ends = [around(killed_s, own, workers)[1][0] for own in job.steps().values()]
    batch = (shares - 1) / shares if dropped else 1.0
    return max(ends) - killed_s - before_s, batch * before_s / job.step_s(), before_s


def restart(job: Job, rng: random.Random, again: str) -> Found:
    """again: the coordinator of the second life, which is there already."""
    workers = job.args.workers
    job.start(workers)
    await_("calm", lambda: job.calm(workers))
    await_("a checkpoint", lambda: next(iter(job.steps().values()))[-1][1] > job.args.every)
    before_s = job.step_s()
    time.sleep(rng.random() * before_s * job.args.every)
    done = max(own[-1][1] for own in job.steps().values())
    killed_s = time.monotonic()
    job.end()
    job.coordinator = again
    job.start(workers)

    def ahead() -> bool:
        return all(own and own[-1][1] > done for own in job.steps().values())

    await_("new steps", ahead)
    ends = [min(t for t, step, *_ in own if step > done) for own in job.steps().values()]
    return max(ends) - killed_s - before_s, None, before_s


async def under_coordinator(workers: int, measure: Callable[[str, str], Measured]) -> Measured:
    """measure: called with the addresses of two coordinators, of two lives of a job."""
    wanted = EmbeddedCoordinator(
        job="elastic",
        listen="127.0.0.1:0",
        min_islands=workers,
        store="memory",
        metrics_port=-1,
    )
    async with hosted(wanted) as host, hosted(wanted) as second:
        return await asyncio.to_thread(measure, host.address, second.address)


def one(mode: str, seed: int, args: argparse.Namespace) -> Found:
    """One life of a job, and one kill."""
    rng = random.Random(seed)

    def measure(address: str, again: str) -> Found:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(address, Path(folder), mode, args)
            try:
                if mode == "restart":
                    return restart(job, rng, again)
                return without_a_restart(job, rng)
            finally:
                job.end()

    return asyncio.run(under_coordinator(args.workers, measure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--modes", nargs="+", default=["elastic", "reroute", "drop", "restart"])
    add("--workers", type=int, default=6)
    add("--pipeline", type=int, default=2)
    add("--layers", type=int, default=24)
    add("--micro-batches", type=int, default=12)
    add("--layer-ms", type=float, default=6.0, help="both passes of a micro-batch (6)")
    add("--width", type=int, default=64, help="a layer has width^2 + width parameters (64)")
    add("--every", type=int, default=10, help="steps between checkpoints (10)")
    add("--kills", type=int, default=3)
    add("--seed", type=int, default=1)
    args = parser.parse_args()
    before: list[float] = []
    for mode in args.modes:
        found = [one(mode, args.seed + n, args) for n in range(args.kills)]
        before += [step_s for *_, step_s in found]
        parts = []
        for what, scale, unit, values in (
            ("recovery", 1e3, " ms", [r for r, *_ in found]),
            ("throughput", 1.0, "", [t for _, t, _ in found if t is not None]),
        ):
            if values:
                shown = [f"{value * scale:.3g}" for value in sorted(values)]
                middle = statistics.median(values) * scale
                parts.append(f"{what} median {middle:.3g}{unit} of {', '.join(shown)}")
        print(
            f"{mode}: {'; '.join(parts)}; a step {statistics.median(before) * 1e3:.0f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
