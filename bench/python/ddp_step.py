"""What a fault-tolerant step costs beside a plain one: small models, replicas on loopback.

    make bench-ddp               (or: .venv/bin/python bench/python/ddp_step.py --replicas 3)

As many processes as replicas train the same small model at the same time, one thread each: first
each by itself (forward, backward and the optimizer's step), then as replicas of one job with
default settings. The cost is the difference of the medians; it holds the wait for whoever is
slowest. On fewer processors than replicas it holds the wait for a processor as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

from coordinating import coordinating
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

WARM_UP = 100
BATCHES = {
    "plain": {},
    "constant": {},
    "scaled": {"replicas": 3},
    "fixed": {"micro_batches": 4},
}


def work(batch: str, width: int, steps: int) -> list[float]:
    """Seconds of each step of one process."""
    import torch

    import atoll

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Linear(width, width)
    )
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.randn(8, width)
    took: list[float] = []
    if batch == "plain":
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(steps + WARM_UP):
            began = time.perf_counter()
            inner.zero_grad()
            model(x).square().mean().backward()
            inner.step()
            took.append(time.perf_counter() - began)
        return took
    with atoll.join({"metrics_port": -1}) as session:
        ddp = atoll.FaultTolerantDDP(session, model, batch=batch, **BATCHES[batch])
        optimizer = atoll.FaultTolerantOptimizer(ddp, inner)
        print("ready", flush=True)
        sys.stdin.readline()
        while ddp.step < steps + WARM_UP:
            began = time.perf_counter()
            optimizer.zero_grad()
            for index in ddp.micro_batches() if batch == "fixed" else (0,):
                ddp(x + index).square().mean().backward()
            optimizer.step()
            took.append(time.perf_counter() - began)
    return took


async def measure(batch: str, args: argparse.Namespace, coordinator: str) -> list[float]:
    """Milliseconds of the first process's steps."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if batch != "plain":
        environment |= {"ATOLL_COORDINATOR": coordinator, "ATOLL_JOB": f"ddp-{batch}"}
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).resolve()), "--work", batch),
            *("--width", str(args.width), "--steps", str(args.steps)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**environment, "ATOLL_ISLAND": f"replica-{number}"},
        )
        for number in range(args.replicas)
    ]
    for process in processes:
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise SystemExit(f"{batch}: a replica did not start")
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    return [1e3 * each for each in json.loads(answers[0][0])[WARM_UP:]]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--width", type=int, default=64, help="of the model's two layers (64)")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--work", choices=BATCHES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        print(json.dumps(work(args.work, args.width, args.steps)))
        return
    title = (
        f"{args.replicas} replicas, {2 * args.width * (args.width + 1):,} parameters, "
        f"{os.cpu_count()} processors; ms"
    )
    table = Table("batch", "median", "99 %", "more than plain", title=title, box=MARKDOWN)
    plain = 0.0
    for batch in BATCHES:
        async with coordinating(f"ddp-{batch}", args.replicas) as coordinator:
            took = await measure(batch, args, coordinator.address)
        middle = statistics.median(took)
        plain = plain or middle
        late = statistics.quantiles(took, n=100)[98]
        table.add_row(batch, f"{middle:.3f}", f"{late:.3f}", f"{middle - plain:.3f}")
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(main())
