"""Membership over real connections: a coordinator's process, and peers that each have a stream.

    make bench-scale SCALE_ARGS="--grpc 500"

Peers are light (scale_peers.py): the real machine and the real gRPC stream, and no data plane. They
share this machine with the coordinator, so seconds are the whole's; CPU is the coordinator's alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from coordinating import Coordinator, coordinating
from scale_peers import peer_id

WORKER = Path(__file__).with_name("scale_peers.py")
JOB = "scale"
PATIENCE_S = 300.0
CALM_S = 2.0
"""From a view to the next event: what is said after it has been said."""


@dataclass(slots=True)
class Found:
    """Seconds; CPU seconds of the coordinator; `heartbeats`: cores that those of all peers take."""

    peers: int
    formed_s: float = 0.0
    formed_cpu_s: float = 0.0
    heartbeats: float = 0.0
    join_s: list[float] = field(default_factory=list)
    join_cpu_s: list[float] = field(default_factory=list)
    loss_s: list[float] = field(default_factory=list)
    loss_cpu_s: list[float] = field(default_factory=list)


class Crowds:
    """Processes full of peers."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._processes = processes
        self._epoch = 0

    def tell(self, command: str, number: int, *, to: int | None = None) -> None:
        for place, process in enumerate(self._processes):
            if to is None or place == to % len(self._processes):
                assert process.stdin is not None
                process.stdin.write(f"{command} {number}\n".encode())

    async def installed(self) -> float:
        """Waits for the next view; returns when the last peer had installed it."""
        self._epoch += 1
        return max(await asyncio.gather(*(self._one(process) for process in self._processes)))

    async def _one(self, process: asyncio.subprocess.Process) -> float:
        assert process.stdout is not None
        while True:
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
            if not line:
                raise SystemExit("scale: a process of peers ended")
            said = json.loads(line)
            if said.get("installed") == self._epoch:
                return float(said["at_s"])


@contextlib.asynccontextmanager
async def crowds(coordinator: Coordinator, count: int) -> AsyncIterator[Crowds]:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, str(WORKER), coordinator.address, JOB),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        yield Crowds(processes)
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def measure(
    peers: int,
    *,
    processes: int = 2,
    repeats: int = 5,
    idle_s: float = 10.0,
    calm_s: float = CALM_S,
) -> Found:
    """Forms a job of so many peers; then joins, losses and heartbeats, one after the other."""
    assert peer_id(peers)
    found = Found(peers)
    async with (
        coordinating(JOB, min_islands=peers) as coordinator,
        crowds(coordinator, processes) as all_of_them,
    ):
        began_s, before_s = time.monotonic(), coordinator.cpu_s()
        for number in range(peers):
            all_of_them.tell("join", number, to=number)
        found.formed_s = await all_of_them.installed() - began_s
        await asyncio.sleep(calm_s)
        found.formed_cpu_s = coordinator.cpu_s() - before_s
        before_s = coordinator.cpu_s()
        await asyncio.sleep(idle_s)
        found.heartbeats = (coordinator.cpu_s() - before_s) / idle_s
        for repeat in range(repeats):
            for command, number, seconds, cpu in (
                ("join", peers + repeat, found.join_s, found.join_cpu_s),
                ("lose", 1 + repeat, found.loss_s, found.loss_cpu_s),
            ):
                before_s, began_s = coordinator.cpu_s(), time.monotonic()
                all_of_them.tell(command, number, to=number if command == "join" else None)
                seconds.append(await all_of_them.installed() - began_s)
                await asyncio.sleep(calm_s)
                beating_s = found.heartbeats * (time.monotonic() - began_s)
                cpu.append(coordinator.cpu_s() - before_s - beating_s)
    return found


def report(found: Found) -> None:
    print(
        f"{found.peers} peers over gRPC: a job of them that come at once is formed after "
        f"{found.formed_s:.1f} s ({found.formed_cpu_s:.1f} s of the coordinator's CPU);"
        f" heartbeats take {100 * found.heartbeats:.1f} % of a core"
    )
    for name, seconds, cpu in (
        ("join", found.join_s, found.join_cpu_s),
        ("loss", found.loss_s, found.loss_cpu_s),
    ):
        print(
            f"{name}: all have the next view after {1e3 * statistics.median(seconds):.0f} ms "
            f"(worst of {len(seconds)}: {1e3 * max(seconds):.0f} ms), "
            f"{1e3 * statistics.median(cpu):.0f} ms of the coordinator's CPU"
        )
