"""`atoll run`: from settings to a running job, and from its end to an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from atoll.config import parse_address
from atoll.pb import control_pb2 as pb
from atoll_launcher import exit_codes, preflight
from atoll_launcher.children import Exit
from atoll_launcher.display import make_display
from atoll_launcher.embedded import EmbeddedCoordinator, hosted
from atoll_launcher.events import EventsFile
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.job import Job, JobPlan
from atoll_launcher.observer import History, fetch_history, fetch_status
from atoll_launcher.settings import AllSettings, IslandPlan, RunSettings
from atoll_launcher.supervisor import Finish
from atoll_launcher.traces import traceback_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the command line asks for. `join`: the coordinator's address; None: standalone."""

    settings: AllSettings
    join: str | None
    script: str
    arguments: tuple[str, ...]


def run(request: RunRequest) -> int:
    """Run the job and return the exit code. Raises LauncherError before anything is started."""
    settings = request.settings.run.value
    for warning in request.settings.warnings:
        print(f"atoll: warning: {warning}", file=sys.stderr)
    preflight.check_environment(os.environ)
    # gRPC reads it when it is imported, in this process too.
    os.environ.pop("GRPC_ENABLE_FORK_SUPPORT", None)
    preflight.check_script(request.script)
    _check_ports(settings, request.join is None)
    events = EventsFile(settings.events) if settings.events else None
    try:
        verdict, failure, is_shown = asyncio.run(_run(request, settings, events))
    finally:
        if events is not None:
            events.close()
    if verdict.code not in (exit_codes.OK, 130, 143, 129):
        _explain(verdict, failure, is_shown)
    return verdict.code


def _check_ports(settings: RunSettings, hosts: bool) -> None:
    if hosts:
        preflight.check_port(*parse_address(settings.listen), "--listen")
    if settings.metrics_port > 0:
        count = settings.islands + (1 if hosts else 0)
        if settings.metrics_port + count > 65536:
            raise LauncherError(
                f"--metrics-port {settings.metrics_port} leaves no room for {count} ports; "
                "choose a lower one"
            )
        for port in range(settings.metrics_port, settings.metrics_port + count):
            preflight.check_port("127.0.0.1", port, "--metrics-port")


async def _run(
    request: RunRequest, settings: RunSettings, events: EventsFile | None
) -> tuple[Finish, Exit | None, bool]:
    """Return the verdict, the failure worth showing, and whether its lines were shown already."""
    async with _coordinator(request, settings) as found:
        log_dir = preflight.make_log_dir(settings.log_dir, found.name)
        plan = _plan(request, settings, found, log_dir)
        display = make_display(found.name, plain=settings.plain, quiet=settings.quiet)
        try:
            verdict, failure = await Job(plan, display, events).run()
        finally:
            display.close()
    return verdict, failure, display.shows_output


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A coordinator, started or met, and the names for our islands."""

    name: str
    address: str
    islands: list[str]
    metrics_port: int = 0
    history: History


@contextlib.asynccontextmanager
async def _coordinator(request: RunRequest, settings: RunSettings) -> AsyncIterator[Found]:
    if request.join is None:
        name = settings.job or preflight.job_name(request.script)
        coordinator = EmbeddedCoordinator(
            job=name,
            listen=settings.listen,
            min_islands=settings.min_islands or settings.islands,
            store=settings.store,
            metrics_port=settings.metrics_port,
        )
        async with hosted(coordinator) as running:
            yield Found(
                name=name,
                address=running.address,
                islands=[f"island-{number}" for number in range(settings.islands)],
                metrics_port=running.metrics_port,
                history=History(),
            )
        return
    status = await fetch_status(request.join)
    if settings.job is not None and settings.job != status.job:
        raise LauncherError(
            f"the coordinator at {request.join} runs job '{status.job}', not '{settings.job}'; "
            "correct --job or leave it out",
            exit_codes.CANNOT_JOIN,
        )
    history = await fetch_history(request.join)
    islands = joining_names(status, history.joined, settings.islands)
    yield Found(name=status.job, address=request.join, islands=islands, history=history)


def joining_names(status: pb.StatusReply, seen: Iterable[str], count: int) -> list[str]:
    """Return names for islands that join: the next free numbers of a job that is under way.

    `seen` are all islands that ever joined: one that is away may come back under its name. Before
    the first view, islands may be on their way that nobody knows of: those names are random.
    """
    if status.epoch == 0:
        return [f"island-{secrets.token_hex(2)}{number}" for number in range(count)]
    names = {*seen, *(peer.info.island for peer in status.peers)}
    numbers = [name.removeprefix("island-") for name in names]
    taken = [int(number) for number in numbers if number.isdecimal()]
    first = max([*taken, status.min_islands - 1], default=-1) + 1
    return [f"island-{first + number}" for number in range(count)]


def _plan(request: RunRequest, settings: RunSettings, found: Found, log_dir: Path) -> JobPlan:
    hosts = request.join is None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = settings.threads or max(1, (cores or 1) // settings.islands)
    base, first = settings.metrics_port, 1 if hosts else 0
    islands = [
        IslandPlan(
            name=island,
            coordinator=found.address,
            job=found.name,
            metrics_port=base + first + index if base > 0 else base,
            log_dir=log_dir,
            threads=threads,
        )
        for index, island in enumerate(found.islands)
    ]
    return JobPlan(
        name=found.name,
        address=found.address,
        after=found.history.last_number,
        hosts=hosts,
        command=(request.script, *request.arguments),
        islands=tuple(islands),
        max_restarts=settings.max_restarts,
        floor=(settings.min_islands or 1) if hosts else 0,
        log_dir=log_dir,
        metrics_port=found.metrics_port,
        session_variables=request.settings.session_variables,
    )


def _explain(verdict: Finish, failure: Exit | None, is_shown: bool) -> None:
    if failure is None:
        print(f"atoll: {verdict.message}", file=sys.stderr)
        return
    if not is_shown:
        for line in traceback_lines(failure.tail):
            print(f"{failure.island} | {line}", file=sys.stderr)
    print(f"atoll: {verdict.message}; log in {failure.log}", file=sys.stderr)
