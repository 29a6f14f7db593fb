"""A job of one library: its coordinator, its replicas, and when they committed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from libraries import HERE, Library
from records import Records

START_S = 120.0
FORM_S = 150.0
# Between two looks at the records. They tell the time, so rare looks only leave the others alone.
LOOK_S = 0.01


class JobEnded(Exception):
    """A replica has ended that nobody has killed: one line of its log."""


@dataclass(slots=True)
class Replica:
    name: str
    process: asyncio.subprocess.Process
    records: Records
    log: Path

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def complaint(self) -> str:
        """The last line that begins a message, which of a traceback is the error."""
        lines = self.log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line and not line[0].isspace() and "[INFO]" not in line]
        return said[-1][:300] if said else f"exit status {self.process.returncode}"


class Job:
    """`replicas`: those that train, or should."""

    def __init__(self, library: Library, folder: Path) -> None:
        self.library = library
        self.replicas: list[Replica] = []
        self._folder = folder
        self._port = free_port()
        self._number = 0
        self._coordinator: asyncio.subprocess.Process | None = None

    async def start_coordinator(self) -> None:
        with (self._folder / "coordinator.log").open("ab") as log:
            self._coordinator = await asyncio.create_subprocess_exec(
                *self.library.coordinator(self._port, self._folder), stdout=log, stderr=log
            )
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), 1.0).close()
                return
            await asyncio.sleep(LOOK_S)
        raise SystemExit(f"{self.library.name}: the coordinator did not start")

    async def kill_coordinator(self) -> None:
        assert self._coordinator is not None
        self._coordinator.kill()
        await self._coordinator.wait()

    async def spawn(self) -> Replica:
        """A process that has imported everything."""
        self._number += 1
        name = f"replica_{self._number}"
        log = self._folder / f"{name}.log"
        path = self._folder / f"{name}.times"
        records = Records(path)
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(self.library.python, str(HERE / self.library.worker), str(path)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=self.library.replica(name, self._port),
            )
        replica = Replica(name, process, records, log)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        if line != b"imported\n":
            raise SystemExit(f"{self.library.name}: no start: {replica.complaint()}")
        return replica

    async def join(self, replica: Replica) -> None:
        assert replica.process.stdin is not None
        replica.process.stdin.write(b"go\n")
        await replica.process.stdin.drain()
        self.replicas.append(replica)

    async def formed(self) -> None:
        """Wait until all commit together."""
        count = len(self.replicas)
        await self.until(lambda: all(one.records.replicas == count for one in self.replicas))

    async def until(self, condition: Callable[[], bool], patience_s: float = FORM_S) -> None:
        """Raises JobEnded, or TimeoutError."""
        async with asyncio.timeout(patience_s):
            while not condition():
                for replica in self.replicas:
                    if replica.process.returncode is not None:
                        raise JobEnded(replica.complaint())
                await asyncio.sleep(LOOK_S)

    def firsts(self, after_s: float, replicas: int) -> list[float] | None:
        """When each first committed with `replicas` after that moment; None: one has not yet."""
        found = []
        for replica in self.replicas:
            rows = replica.records.newest()
            fits = (rows[:, 0] > after_s) & (rows[:, 1] == replicas)
            if not fits.any():
                return None
            found.append(float(rows[np.argmax(fits), 0]))
        return found

    def normal_s(self) -> float:
        """An undisturbed step of the newest ones, median over all replicas."""
        gaps = [np.diff(one.records.newest(50)[:, 0]) for one in self.replicas]
        return float(np.median(np.concatenate(gaps)))

    async def close(self, others: Sequence[Replica] = ()) -> None:
        for replica in [*self.replicas, *others]:
            await replica.end()
        if self._coordinator is not None and self._coordinator.returncode is None:
            await self.kill_coordinator()


def longest_gap_s(replicas: Sequence[Replica], since_s: float) -> float:
    """Between two commits of any one of them, the last one before `since_s` and later ones."""
    gaps = []
    for replica in replicas:
        times = replica.records.newest()[:, 0]
        first = max(0, int(np.searchsorted(times, since_s)) - 1)
        gaps.append(float(np.diff(times[first:]).max(initial=0.0)))
    return max(gaps)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.asynccontextmanager
async def running(library: Library, count: int) -> AsyncIterator[Job]:
    """A job whose `count` replicas train together."""
    with TemporaryDirectory() as name:
        job = Job(library, Path(name))
        try:
            await job.start_coordinator()
            for replica in [await job.spawn() for _ in range(count)]:
                await job.join(replica)
            await job.formed()
            yield job
        finally:
            await job.close()
