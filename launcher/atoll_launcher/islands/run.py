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
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.islands import preflight
from atoll_launcher.islands.children import Exit
from atoll_launcher.islands.embedded import EmbeddedCoordinator, hosted
from atoll_launcher.islands.job import Job, JobPlan
from atoll_launcher.islands.supervisor_events import Finish
from atoll_launcher.islands.traces import traceback_lines
from atoll_launcher.settings import AllSettings, IslandPlan, RunSettings
from atoll_launcher.trust.access import Access, access_of
from atoll_launcher.watch import whereabouts
from atoll_launcher.watch.display import make_display
from atoll_launcher.watch.events import EventsFile
from atoll_launcher.watch.observer import History, fetch_history, fetch_status


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the command line asks for. `join`: the coordinator's address; None: standalone."""

    settings: AllSettings
    join: str | None
    script: str
    arguments: tuple[str, ...]
    token: str | None = None


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
    access = access_of(request.settings, hosts=request.join is None, token=request.token)
    events = EventsFile(settings.events) if settings.events else None
    try:
        verdict, failure, is_shown = asyncio.run(_run(request, settings, access, events))
    finally:
        if events is not None:
            events.close()
    if verdict.code not in (exit_codes.OK, 130, 143, 129):
        explain(verdict, failure, is_shown)
    return verdict.code


def _check_ports(settings: RunSettings, hosts: bool) -> None:
    if hosts:
        preflight.check_port(*parse_address(settings.listen), "--listen")
    if settings.metrics_port > 0:
        count = settings.islands * (settings.nproc_per_node or 1) + (1 if hosts else 0)
        if settings.metrics_port + count > 65536:
            raise LauncherError(
                f"--metrics-port {settings.metrics_port} leaves no room for {count} ports; "
                "choose a lower one"
            )
        for port in range(settings.metrics_port, settings.metrics_port + count):
            preflight.check_port("127.0.0.1", port, "--metrics-port")


async def _run(
    request: RunRequest, settings: RunSettings, access: Access, events: EventsFile | None
) -> tuple[Finish, Exit | None, bool]:
    """Return the verdict, the failure worth showing, and whether its lines were shown already."""
    async with _coordinator(request, settings, access) as found:
        log_dir = preflight.make_log_dir(settings.log_dir, found.name)
        plan = _plan(request, settings, access, found, log_dir)
        operator = None if settings.authority is None else settings.authority / "operator"
        own = access.folder if operator is None else operator
        display = make_display(found.name, plain=settings.plain, quiet=settings.quiet)
        try:
            with whereabouts.told(found.address, own, operates=operator is not None):
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
async def _coordinator(
    request: RunRequest, settings: RunSettings, access: Access
) -> AsyncIterator[Found]:
    if request.join is None:
        name = settings.job or preflight.job_name(request.script)
        coordinator = EmbeddedCoordinator(
            job=name,
            listen=settings.listen,
            min_islands=settings.min_islands or settings.islands,
            store=settings.store,
            metrics_port=settings.metrics_port,
            authority=settings.authority,
            insecure=settings.insecure,
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
    try:
        status = await fetch_status(request.join, access.identity)
    except LauncherError as error:
        from atoll_launcher.diagnosis.doctor import why_not_joined

        for finding in await why_not_joined(request.join, access.identity, error):
            print(finding, file=sys.stderr)
        raise
    if settings.job is not None and settings.job != status.job:
        raise LauncherError(
            f"the coordinator at {request.join} runs job '{status.job}', not '{settings.job}'; "
            "correct --job or leave it out",
            exit_codes.CANNOT_JOIN,
        )
    history = await fetch_history(request.join, access.identity)
    islands = (
        names_of(access.name, settings.islands)
        if access.name
        else joining_names(status, history.joined, settings.islands)
    )
    yield Found(name=status.job, address=request.join, islands=islands, history=history)


def joining_names(status: pb.StatusReply, seen: Iterable[str], count: int) -> list[str]:
    """Return names for islands that join: the next free numbers of a job that is under way.

    `seen` are all islands that ever joined: one that is away may come back under its name. Before
    the first view, islands may be on their way that nobody knows of: those names are random.
    """
    if status.epoch == 0:
        return [f"island-{secrets.token_hex(2)}{number}" for number in range(count)]
    names = {*seen, *status.seen_islands, *(peer.info.island for peer in status.peers)}
    numbers = [name.removeprefix("island-") for name in names]
    taken = [int(number) for number in numbers if number.isdecimal()]
    first = max([*taken, status.min_islands - 1], default=-1) + 1
    return [f"island-{first + number}" for number in range(count)]


def names_of(name: str, count: int) -> list[str]:
    """Return names for islands with a certificate: it speaks for NAME, or NAME-0, NAME-1, ..."""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(count)]


def _plan(
    request: RunRequest, settings: RunSettings, access: Access, found: Found, log_dir: Path
) -> JobPlan:
    hosts = request.join is None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shards = settings.nproc_per_node or 1
    threads = settings.threads or max(1, (cores or 1) // (settings.islands * shards))
    base, first = settings.metrics_port, 1 if hosts else 0
    islands = [
        IslandPlan(
            name=island,
            coordinator=found.address,
            job=found.name,
            metrics_port=base + first + index * shards if base > 0 else base,
            log_dir=log_dir,
            threads=threads,
            shards=settings.nproc_per_node,
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
        session_variables={
            **request.settings.session_variables,
            **access.variables,
            **({"ATOLL_INSECURE": "1"} if settings.insecure else {}),
        },
        leave_s=request.settings.session.value.leave_s,
        identity=access.identity,
        authority=settings.authority if hosts else None,
    )


def explain(verdict: Finish, failure: Exit | None, is_shown: bool) -> None:
    """Say on stderr why a job has failed; the failure's lines unless they were shown already."""
    if failure is None:
        print(f"atoll: {verdict.message}", file=sys.stderr)
        return
    if not is_shown:
        for line in traceback_lines(failure.tail):
            print(f"{failure.label} | {line}", file=sys.stderr)
    print(f"atoll: {verdict.message}; log in {failure.log}", file=sys.stderr)
