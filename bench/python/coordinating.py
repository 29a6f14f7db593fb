"""A coordinator in a process of its own, for benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

START_S = 120.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Coordinator:
    address: str
    pid: int

    def cpu_s(self) -> float:
        """What it has used so far, to a hundredth of a second."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.asynccontextmanager
async def coordinating(job: str, min_islands: int) -> AsyncIterator[Coordinator]:
    """Runs with the defaults, and a store in memory, as long as the context lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atoll.coordinator", "--listen", "127.0.0.1:0"),
        *("--job", job, "--min-islands", str(min_islands)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    found = None
    while found is None:
        line = await asyncio.wait_for(process.stderr.readline(), START_S)
        if not line:
            raise SystemExit("the coordinator did not start")
        found = re.search(rb"listening on port (\d+)", line)
    reading = asyncio.create_task(_drain(process.stderr))
    try:
        yield Coordinator(f"127.0.0.1:{int(found[1])}", process.pid)
    finally:
        process.terminate()
        await process.wait()
        await reading


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass
