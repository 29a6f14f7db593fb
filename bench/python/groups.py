"""Groups of processes that measure all-reduces in turn. One asyncio loop owns them.

A group stays while others take their turns: its members wait for a line, and use no CPU but for a
heartbeat. Everything that goes wrong is a GroupError of one line; the processes are ended by id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atoll_launcher.islands.embedded import EmbeddedCoordinator, hosted
from atoll_launcher.trust.certs import issue_island, make_authority

WORKER = Path(__file__).with_name("allreduce_worker.py")
TORCH_WORKER = Path(__file__).with_name("backend_worker.py")
HIVEMIND_WORKER = Path(__file__).parent / "peers/averaging_hivemind.py"
HIVEMIND_PYTHON = Path(__file__).parents[2] / ".venv-peers/bin/python"
# Until all members have imported torch and met.
START_S = 120.0
END_S = 10.0
# A turn that is slower than this, in bytes a second of one vector, is stuck.
SLOWEST = 2e6
# Answers carry a number for each iteration.
LINE_BYTES = 1 << 20


class GroupError(Exception):
    """A group cannot go on: one line."""


class Group:
    """The members of one variant, ready to measure."""

    def __init__(self, name: str, processes: Sequence[asyncio.subprocess.Process], logs: Path):
        self._name = name
        self._processes = processes
        self._logs = logs

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def measure(
        self,
        nbytes: int,
        iterations: int,
        warm_up: int,
        codec: str | None = None,
        op: str = "all_reduce",
    ) -> Any:
        """Return all members' times in one list, and what they used together."""
        asked: dict[str, Any] = {"bytes": nbytes, "iterations": iterations, "warm_up": warm_up}
        asked |= {"codec": codec, "op": op}
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(asked).encode() + b"\n")
        patience_s = 30 + nbytes * (iterations + warm_up) * len(self._processes) / SLOWEST
        answers = await self._answers(patience_s, f"{nbytes} bytes, {iterations} times")
        return {
            "times_s": [time_s for answer in answers for time_s in answer["times_s"]],
            "cpu_s_per_op": sum(answer["cpu_s"] for answer in answers) / iterations,
            "sleeps_per_op": sum(answer["sleeps"] for answer in answers) / iterations,
        }

    async def ready(self) -> None:
        await self._answers(START_S, "the start")

    async def _answers(self, patience_s: float, what: str) -> list[Any]:
        try:
            async with asyncio.timeout(patience_s):
                return [await self._answer(process) for process in self._processes]
        except TimeoutError:
            raise GroupError(
                f"{self._name}: no answer to {what} within {patience_s:.0f} s; "
                "is the machine overloaded?"
            ) from None

    async def _answer(self, process: asyncio.subprocess.Process) -> Any:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            code = await _ended(process)
            died = f"killed by signal {-code}, out of memory?" if code and code < 0 else ""
            raise GroupError(f"{self._name}: a member has ended: {died or self._complaint()}")
        return json.loads(line)

    def _complaint(self) -> str:
        """Return the last line that any member wrote, which of a traceback is the error."""
        for log in sorted(self._logs.glob("*.log")):
            lines = log.read_text(errors="replace").split("\n")
            said = [line for line in lines if line and not line[0].isspace()]
            if said and "Error" in said[-1]:
                return said[-1]
        return "no error was printed"

    async def close(self) -> None:
        """Ask all to end; kill those that do not."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            await _ended(process, END_S)
        await self.kill()

    async def kill(self) -> None:
        for process in self._processes:
            if await _ended(process) is None:
                process.kill()
                await process.wait()


async def _ended(process: asyncio.subprocess.Process, patience_s: float = 0.5) -> int | None:
    """Return the exit code of a process that ends now; None: it goes on."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), patience_s)
    return process.returncode


@contextlib.asynccontextmanager
async def gloo_group(members: int) -> AsyncIterator[Group]:
    """Gloo over loopback. Its members meet through a file: no port can be taken by another."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        commands = [["gloo", str(store), str(rank), str(members)] for rank in range(members)]
        extra = {"GLOO_SOCKET_IFNAME": "lo"}
        async with _group("gloo", commands, [extra] * members, Path(folder)) as group:
            yield group


@contextlib.asynccontextmanager
async def torch_group(backend: str, members: int, device: str = "cpu") -> AsyncIterator[Group]:
    """A process group of torch.distributed. `backend`: gloo, atoll, or tcp: atoll over TCP."""
    with tempfile.TemporaryDirectory() as folder:
        name, store = "atoll" if backend == "tcp" else backend, Path(folder) / "store"
        commands = [[name, str(store), str(rank), str(members), device] for rank in range(members)]
        shared = "0" if backend == "tcp" else "1"
        extra = {"GLOO_SOCKET_IFNAME": "lo", "ATOLL_SHARED_MEMORY": shared}
        environments = [extra] * members
        async with _group(backend, commands, environments, Path(folder), TORCH_WORKER) as group:
            yield group


@contextlib.asynccontextmanager
async def hivemind_group(members: int) -> AsyncIterator[Group]:
    """Averagers of hivemind, in an environment of their own (`make bench-peers`)."""
    with tempfile.TemporaryDirectory() as folder:
        commands = [[folder, str(rank), str(members)] for rank in range(members)]
        async with _group(
            "hivemind",
            commands,
            [{}] * members,
            Path(folder),
            HIVEMIND_WORKER,
            str(HIVEMIND_PYTHON),
        ) as group:
            yield group


@contextlib.asynccontextmanager
async def atoll_group(transport: str, members: int) -> AsyncIterator[Group]:
    """Islands of a job of their own. `transport`: tcp, tls or shm."""
    names = [f"island-{number}" for number in range(members)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        authority = folder / "certs" if transport == "tls" else None
        if authority is not None:
            make_authority("bench", authority, days=1)
            for name in names:
                issue_island(authority, name, None, days=1)
        coordinator = EmbeddedCoordinator(
            job="bench",
            listen="127.0.0.1:0",
            min_islands=members,
            store="memory",
            metrics_port=-1,
            authority=authority,
        )
        async with hosted(coordinator) as running:
            environments = [
                {
                    "ATOLL_COORDINATOR": running.address,
                    "ATOLL_JOB": "bench",
                    "ATOLL_ISLAND": name,
                    "ATOLL_SHARED_MEMORY": "1" if transport == "shm" else "0",
                    **({} if authority is None else {"ATOLL_TLS_DIR": str(authority / name)}),
                }
                for name in names
            ]
            commands = [["atoll"]] * members
            async with _group(transport, commands, environments, folder) as group:
                yield group


@contextlib.asynccontextmanager
async def _group(
    name: str,
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    logs: Path,
    worker: Path = WORKER,
    python: str = sys.executable,
) -> AsyncIterator[Group]:
    processes: list[asyncio.subprocess.Process] = []
    group = Group(f"{name} with {len(commands)} members", processes, logs)
    try:
        for number, (command, extra) in enumerate(zip(commands, environments, strict=True)):
            with (logs / f"{number}.log").open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    *(python, str(worker), *command),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": "1", **extra},
                    limit=LINE_BYTES,
                )
            processes.append(process)
        await group.ready()
        yield group
        await group.close()
    finally:
        await group.kill()


async def floor(
    program: Path, members: int, nbytes: int, iterations: int, warm_up: int, send_buffer: int
) -> Any:
    """Run the native floor once; return the same as `Group.measure`."""
    patience_s = 30 + nbytes * (iterations + warm_up) * members / SLOWEST
    process = await asyncio.create_subprocess_exec(
        *(str(program), "--members", str(members), "--bytes", str(nbytes)),
        *("--iterations", str(iterations), "--warm-up", str(warm_up)),
        *("--timeout-s", str(int(patience_s)), "--send-buffer", str(send_buffer)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode != 0:
        raise GroupError(err.decode().strip() or "floor has failed")
    answer = json.loads(out)
    return {name: answer[name] for name in ("times_s", "cpu_s_per_op", "sleeps_per_op")}
