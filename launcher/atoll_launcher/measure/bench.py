"""`atoll bench`: start islands for it, or be one of a job; show what they measured."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from atoll.errors import AtollError, MisuseError
from atoll.measure import Measurement
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.islands import preflight
from atoll_launcher.islands.children import Exit
from atoll_launcher.islands.embedded import EmbeddedCoordinator, hosted
from atoll_launcher.islands.job import Job, JobPlan
from atoll_launcher.islands.run import explain
from atoll_launcher.islands.supervisor_events import Finish
from atoll_launcher.measure import bench_island
from atoll_launcher.measure.bench_report import Machine, document, print_table
from atoll_launcher.measure.bench_request import Request, check_memory, shown_size
from atoll_launcher.settings import IslandPlan, load_settings
from atoll_launcher.watch.events import Event

JOB = "bench"


def run_allreduce(request: Request, islands: int | None, *, as_json: bool) -> int:
    """Measure and print; return the exit code. `islands`: to be started here; None: be one."""
    before = Machine.now()
    if islands is None:
        measurements = _in_job(request)
        if measurements is None:
            return exit_codes.OK  # the oldest island prints
    else:
        code, measurements = _standalone(request, islands)
        if measurements is None:
            return code
    standalone = islands is not None
    shown = document(request, measurements, before, Machine.now(), standalone=standalone)
    if as_json:
        print(json.dumps(shown, indent=2))
    else:
        print_table(shown)
    return exit_codes.OK


def _in_job(request: Request) -> list[Measurement] | None:
    if not os.environ.get("ATOLL_COORDINATOR"):
        raise MisuseError(
            "not inside a job (ATOLL_COORDINATOR is not set); "
            "give --standalone --islands N to start islands here"
        )
    return bench_island.measure(request)


# --- islands of our own ---------------------------------------------------------------------------


def _standalone(request: Request, islands: int) -> tuple[int, list[Measurement] | None]:
    """Return the exit code, and the results when it is 0."""
    given = {"islands": islands, "metrics_port": -1, "threads": 1, "listen": "127.0.0.1:0"}
    settings = load_settings(None, os.environ, given)
    for warning in settings.warnings:
        print(f"atoll: warning: {warning}", file=sys.stderr)
    preflight.check_environment(os.environ)
    # gRPC reads it when it is imported, in this process too.
    os.environ.pop("GRPC_ENABLE_FORK_SUPPORT", None)
    check_memory(request, islands)
    folder = Path(tempfile.mkdtemp(prefix="atoll-bench-"))
    result = folder / "result.json"
    display = _Progress(request)
    keep = True
    try:
        try:
            verdict, failure = asyncio.run(_run(request, islands, folder, result, display))
        finally:
            display.close()
        keep = False
        if result.exists():
            return exit_codes.OK, bench_island.read_results(result)
        if verdict.code == exit_codes.OK:
            raise LauncherError("the islands have ended without a result", exit_codes.WORKER_FAILED)
        if verdict.code not in (130, 143, 129):
            keep = True  # their logs are named in what is printed
            explain(verdict, failure, False)
        return verdict.code, None
    except AtollError as error:
        raise LauncherError(str(error)) from None
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


async def _run(
    request: Request, islands: int, folder: Path, result: Path, display: _Progress
) -> tuple[Finish, Exit | None]:
    coordinator = EmbeddedCoordinator(
        job=JOB,
        listen="127.0.0.1:0",
        min_islands=islands,
        store="memory",
        metrics_port=-1,
    )
    async with hosted(coordinator) as running:
        plans = [
            IslandPlan(
                name=f"island-{number}",
                coordinator=running.address,
                job=JOB,
                metrics_port=-1,
                log_dir=folder,
                threads=1,
            )
            for number in range(islands)
        ]
        plan = JobPlan(
            name=JOB,
            address=running.address,
            after=0,
            hosts=True,
            command=(bench_island.__file__, str(result), request.to_json()),
            islands=tuple(plans),
            max_restarts=0,
            floor=islands,
            log_dir=folder,
            metrics_port=0,
            session_variables={},
        )
        return await Job(plan, display, None).run()


class _Progress:
    """Where the job's events go: one line on a terminal's stderr that says how far it is."""

    def __init__(self, request: Request) -> None:
        self._sizes = [shown_size(one.nbytes) for one in request.series]
        self._shown = sys.stderr.isatty()
        self._show("starting islands")

    @property
    def shows_output(self) -> bool:
        return False

    def event(self, event: Event) -> None:
        if event.kind.value == "view":
            self._show(f"measuring {self._sizes[0]}")

    def line(self, island: str, text: str) -> None:
        name, _, done = text.partition(" ")
        if name == "measured" and done.isdecimal() and int(done) < len(self._sizes):
            self._show(f"measuring {self._sizes[int(done)]}")

    def flush(self, island: str) -> None:
        pass

    def failure(self, island: str, lines: Sequence[str]) -> None:
        pass

    def close(self) -> None:
        self._show("")

    def _show(self, text: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
