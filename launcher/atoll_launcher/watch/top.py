"""`atoll top`: follow a job in the terminal, until `q` or Ctrl-C; plain lines elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc.aio

from atoll.pb import control_pb2 as pb
from atoll.trust.identity import Identity
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.watch.dashboard import Dashboard, advance
from atoll_launcher.watch.events import Event
from atoll_launcher.watch.links import links_of, names_of
from atoll_launcher.watch.observer import CALL_TIMEOUT_S, Observer, find_leader
from atoll_launcher.watch.plain import plain_line
from atoll_launcher.watch.top_view import Known, picture

DRAW_S = 0.5
LINKS_S = 5.0
GONE_S = 30.0
"""A coordinator that does not answer for so long has ended, or will not be missed."""


def top(address: str, identity: Identity | None, *, plain: bool) -> None:
    """Follow the job at `address`. Raises LauncherError when there is none, or none any more."""
    draws = not plain and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    asyncio.run(_top(address, identity, draws))


async def _top(address: str, identity: Identity | None, draws: bool) -> None:
    _, status = await find_leader(address, identity)
    await Top(address, identity, status, draws).run()


class Top:
    """One run of `atoll top`; the loop owns it."""

    def __init__(
        self, address: str, identity: Identity | None, status: pb.StatusReply, draws: bool
    ) -> None:
        self._draws = draws
        self._known = Known(
            dashboard=Dashboard(job=status.job, started_at_s=time.time(), address=address),
            status=status,
        )
        self._status_s = time.monotonic()
        self._observer = Observer(address, self._observed, self._status, _at_once, 0, identity)
        self._end = asyncio.Event()

    async def run(self) -> None:
        """Until the user has seen enough."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end.set)
        tasks = [asyncio.ensure_future(self._observer.run()), asyncio.ensure_future(self._links())]
        try:
            with _keys(self._key) if self._draws else contextlib.nullcontext():
                await (self._draw() if self._draws else self._wait())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._observer.close()

    async def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console()
        with Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as live:
            while not self._end.is_set():
                self._look_whether_gone()
                view = picture(self._known, width=console.width, height=console.height)
                live.update(view, refresh=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._end.wait(), DRAW_S)

    async def _wait(self) -> None:
        while not self._end.is_set():
            self._look_whether_gone()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), DRAW_S)

    def _look_whether_gone(self) -> None:
        silent_s = time.monotonic() - self._status_s
        self._known = replace(self._known, away=silent_s > CALL_TIMEOUT_S)
        if silent_s > GONE_S:
            raise LauncherError(
                f"the coordinator at {self._known.dashboard.address} has not answered for "
                f"{GONE_S:.0f} s; the job may have ended",
                exit_codes.CANNOT_JOIN,
            )

    def _key(self, key: bytes) -> None:
        if key in (b"q", b"Q", b""):
            self._end.set()

    def _observed(self, event: Event) -> None:
        dashboard = advance(self._known.dashboard, event)
        self._known = replace(self._known, dashboard=dashboard)
        line = None if self._draws else plain_line(event)
        if line is not None:
            try:
                print(line, flush=True)
            except BrokenPipeError:
                self._end.set()

    def _status(self, status: pb.StatusReply) -> None:
        now_s = time.monotonic()
        before = {peer.info.id: peer.report.sent_bytes for peer in self._known.status.peers}
        passed_s = max(1e-3, now_s - self._status_s)
        rates = dict(self._known.sent_bytes_per_s)
        for peer in status.peers:
            sent = peer.report.sent_bytes - before.get(peer.info.id, peer.report.sent_bytes)
            # Reports come once a round: a mean over some seconds, or it would be 0 in between.
            weight = min(1.0, passed_s / LINKS_S)
            old = rates.get(peer.info.id, 0.0)
            rates[peer.info.id] = old + weight * (max(0, sent) / passed_s - old)
        there = {peer.info.id for peer in status.peers}
        self._status_s = now_s
        self._known = replace(
            self._known,
            status=status,
            sent_bytes_per_s={peer: rate for peer, rate in rates.items() if peer in there},
        )

    async def _links(self) -> None:
        """Looks now and then what is known of the links; nothing is measured for it."""
        while self._draws:
            try:
                reply = await self._observer.stub.ShowLinks(
                    pb.ShowLinksRequest(), timeout=CALL_TIMEOUT_S
                )
            except grpc.aio.AioRpcError:
                pass  # it is away, or older than this
            else:
                found = links_of(reply, names_of(self._known.status))
                self._known = replace(self._known, links=tuple(found.values()))
            await asyncio.sleep(LINKS_S)


@contextlib.contextmanager
def _keys(on_key: Callable[[bytes], None]) -> Iterator[None]:
    """Keys come one by one and are not shown, if there is a keyboard."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, lambda: on_key(os.read(descriptor, 1)))
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def _at_once(event: Event) -> None:
    """No event is held back."""
