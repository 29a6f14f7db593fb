"""What snapshots and commits cost an elastic island's steps when nobody is lost.

    make bench-elastic              (OVERHEAD_ARGS="--layer-ms 3.3")

Real workers and links; a layer's passes are sleeps (elastic_baselines.py). Stretches of steps
alternate: in one the owners send the gradients to the backups, all compare digests, and the backups
update their copies; in the other nothing of that is done. All workers change over at the same step,
so both see the same machine. The difference of the medians is what protection costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elastic_baselines import Job, island_of, under_coordinator
from elastic_recovery import await_, lines

PATIENCE_S = 600.0
STRETCH = 20
"""Steps. The first two of each do not count."""


def work(coordinator: str, name: str, out: Path, mode: str, args: argparse.Namespace) -> None:
    """One worker: a line of seconds and whether its step was protected, for each step."""
    from atoll.elastic.decision import Decision
    from atoll.elastic.stage_worker import StageWorker

    protected = True
    prepare, confirm = Decision._prepare, Decision._confirm
    apply = StageWorker.apply

    def maybe_prepare(self: Decision, *rest: Any) -> Iterator[Any]:
        if protected:
            return (yield from prepare(self, *rest))
        for shard in self._worker.owned:
            self._worker.prepare(shard)

    def maybe_confirm(self: Decision, *rest: Any) -> Iterator[Any]:
        if protected:
            return (yield from confirm(self, *rest))
        return True

    def maybe_apply(self: StageWorker, landed: Any = None) -> None:
        apply(self, landed)
        if not protected:
            for state in self.shadows.values():
                state.version = self.step  # nobody has told of the step

    Decision._prepare = maybe_prepare  # type: ignore[assignment]
    Decision._confirm = maybe_confirm  # type: ignore[assignment]
    StageWorker.apply = maybe_apply  # type: ignore[method-assign]
    _, island = island_of(coordinator, name, args)
    with (out / f"{name}.log").open("w", buffering=1) as log:
        while True:
            protected = island.step // STRETCH % 2 == 0
            began_s = time.monotonic()
            island.train_step()
            if island.step % STRETCH > 2:
                log.write(json.dumps([time.monotonic() - began_s, protected]) + "\n")


def measure(coordinator: str, out: Path, args: argparse.Namespace) -> dict[bool, list[float]]:
    job = Job(coordinator, out, "elastic", args, work)
    try:
        job.start(args.workers)
        wanted = args.stretches * (STRETCH - 3)
        await_(
            "stretches",
            lambda: all(len(own) >= wanted for own in job.steps().values()),
            patience_s=PATIENCE_S,
        )
        found: dict[bool, list[float]] = {True: [], False: []}
        for seconds, protected in lines(out, "w0")[STRETCH:wanted]:  # the first stretch warms up
            found[protected].append(seconds)
        return found
    finally:
        job.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--workers", type=int, default=4)
    add("--pipeline", type=int, default=2)
    add("--layers", type=int, default=24)
    add("--micro-batches", type=int, default=8)
    add("--layer-ms", type=float, default=3.3, help="both passes of a micro-batch (3.3)")
    add("--width", type=int, default=64, help="a layer has width^2 + width parameters (64)")
    add("--stretches", type=int, default=15, help="of 20 steps; the first does not count (15)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            under_coordinator(args.workers, lambda at, _: measure(at, Path(folder), args))
        )
    bare, whole = (statistics.median(found[kind]) for kind in (False, True))
    print(
        f"a step: {bare * 1e3:.1f} ms without protection, {whole * 1e3:.1f} ms with it "
        f"({(whole / bare - 1) * 100:+.1f} %), medians of {len(found[False])} and "
        f"{len(found[True])}"
    )


if __name__ == "__main__":
    main()
