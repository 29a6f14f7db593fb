"""Shows events and output to people. Drawing happens on a thread of its own.

A terminal that is stopped, or a pipe that nobody reads, must hold up neither the supervision nor
the coordinator that lives in the same process: what cannot be written in time is dropped and
counted, and the islands' logs have all of it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from atoll_launcher.islands.traces import Folder
from atoll_launcher.watch.dashboard import Dashboard, advance, with_line
from atoll_launcher.watch.events import Event
from atoll_launcher.watch.plain import plain_line, printable

if TYPE_CHECKING:
    from rich.console import Console

QUEUE_LINES = 10_000
REFRESH_S = 0.25
CLOSE_S = 1.0


class Display(Protocol):
    """Where events and islands' lines go. All calls come from one thread."""

    @property
    def shows_output(self) -> bool:
        """Whether islands' failures are shown and stay to be read."""

    def event(self, event: Event) -> None:
        """Show an event."""

    def line(self, island: str, text: str) -> None:
        """Show a line that an island printed."""

    def flush(self, island: str) -> None:
        """Show what is held back of an island that has ended."""

    def failure(self, island: str, lines: Sequence[str]) -> None:
        """Show why an island failed, unless its lines are shown anyway."""

    def close(self) -> None:
        """Show the rest, and give the terminal back."""


class PlainDisplay:
    """One line for each event and, unless `quiet`, for each line of an island."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._folder = Folder()
        self._queue: queue.Queue[str | None] = queue.Queue(maxsize=QUEUE_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="display", daemon=True)
        self._thread.start()

    @property
    def shows_output(self) -> bool:
        return True

    def event(self, event: Event) -> None:
        line = plain_line(event)
        if line is not None:
            self._put(line)

    def line(self, island: str, text: str) -> None:
        if not self._quiet:
            self._put_all(island, self._folder.feed(island, printable(text)))

    def flush(self, island: str) -> None:
        self._put_all(island, self._folder.flush(island))

    def failure(self, island: str, lines: Sequence[str]) -> None:
        if self._quiet:
            for line in lines:
                self._put_all(island, self._folder.feed(island, printable(line)))
            self.flush(island)

    def close(self) -> None:
        try:
            self._queue.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_S)

    def _put_all(self, island: str, lines: Sequence[str]) -> None:
        for line in lines:
            self._put(f"{island} | {line}")

    def _put(self, line: str) -> None:
        try:
            if self._dropped:
                self._queue.put_nowait(f"({self._dropped} lines not shown, see the logs)")
                self._dropped = 0
            self._queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _write_all(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                sys.stdout.write(line + "\n")
                if self._queue.empty():
                    sys.stdout.flush()
            sys.stdout.flush()
        except (OSError, ValueError):
            # The reader is gone (`atoll run | head`). The training is not its business.
            while self._queue.get() is not None:
                pass


class LiveDisplay:
    """A table that is drawn again and again. The last picture stays on the terminal."""

    def __init__(self, job: str, *, quiet: bool, console: Console | None = None) -> None:
        self._quiet = quiet
        self._folder = Folder()
        self._state = Dashboard(job=job, started_at_s=time.time())
        self._console = console
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._draw_all, name="display", daemon=True)
        self._thread.start()

    @property
    def shows_output(self) -> bool:
        return False

    def event(self, event: Event) -> None:
        self._state = advance(self._state, event)

    def line(self, island: str, text: str) -> None:
        if not self._quiet:
            self._add(island, self._folder.feed(island, printable(text)))

    def flush(self, island: str) -> None:
        self._add(island, self._folder.flush(island))

    def failure(self, island: str, lines: Sequence[str]) -> None:
        if self._quiet:
            self._add(island, [printable(line) for line in lines])

    def close(self) -> None:
        self._closing.set()
        self._thread.join(CLOSE_S)

    def _add(self, island: str, lines: list[str]) -> None:
        for shown in lines:
            self._state = with_line(self._state, f"{island} | {shown}")

    def _draw_all(self) -> None:
        from rich.console import Console
        from rich.live import Live

        from atoll_launcher.watch.live import render

        console = self._console or Console()
        try:
            with Live(
                console=console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            ) as live:
                is_last = False
                while not is_last:
                    # Asked before the drawing, so that the last picture shows the last state.
                    is_last = self._closing.wait(REFRESH_S)
                    view = render(self._state, time.time(), console.width)
                    live.update(view, refresh=True)
        except OSError:
            # The terminal is gone; SIGHUP, if any, decides about the rest.
            self._closing.wait()


def make_display(job: str, *, plain: bool, quiet: bool) -> Display:
    """Return the live view on a terminal that can draw one, plain lines anywhere else."""
    if plain or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return PlainDisplay(quiet=quiet)
    return LiveDisplay(job, quiet=quiet)
