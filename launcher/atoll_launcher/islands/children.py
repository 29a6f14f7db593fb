"""The islands' processes: start, read, end. The shell around `supervisor`; one event loop owns it.

Every island is the leader of a session of its own, so that Ctrl-C on the terminal reaches the
launcher alone, and so that what the script itself started can be ended with it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from atoll.last_words import NOT_WANTED
from atoll_launcher.islands import bootstrap
from atoll_launcher.islands.traces import error_line, last_word

READ_BYTES = 65536
# A line that never ends is cut here, for a script can print anything.
LONGEST_LINE_BYTES = 8192
TAIL_LINES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How an island ended: of several processes, the first that failed, or else the last.

    `label`: what the process is called by. `tail`: the last lines that it printed. `refused`: why
    the job does not want it any more, in its own words."""

    island: str
    label: str
    pid: int
    code: int
    signal: int
    error: str
    log: Path
    tail: tuple[str, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """One process of an island. `title`: the first line of its log."""

    label: str
    env: Mapping[str, str]
    log: Path
    title: str


@dataclass(slots=True, kw_only=True)
class _Child:
    island: str
    label: str
    process: subprocess.Popen[bytes]
    output: int
    log: BinaryIO
    log_path: Path
    partial: bytes = b""
    tail: collections.deque[str] = field(
        default_factory=lambda: collections.deque(maxlen=TAIL_LINES)
    )


class Children:
    """All processes of this launcher, by the name of their island.

    The processes of an island end together: when one fails, the others are killed, unless they have
    all been asked to end. `on_line(label, text)` for each line and `on_exit(exit)`, once for an
    island whose last process has ended, are called on the loop's thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_line: Callable[[str, str], None],
        on_exit: Callable[[Exit], None],
    ) -> None:
        self._loop = loop
        self._on_line = on_line
        self._on_exit = on_exit
        self._running: dict[str, list[_Child]] = {}
        self._failed: dict[str, Exit] = {}
        self._asked: set[str] = set()  # to end
        loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def start(
        self, island: str, command: Sequence[str], processes: Sequence[ProcessPlan]
    ) -> list[int]:
        """Start an island's script with its arguments, in each process; return their ids."""
        self._failed.pop(island, None)
        self._asked.discard(island)
        self._running[island] = [self._start(island, command, plan) for plan in processes]
        return [child.process.pid for child in self._running[island]]

    def _start(self, island: str, command: Sequence[str], plan: ProcessPlan) -> _Child:
        log = plan.log.open("ab", buffering=0)
        log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {plan.title}\n".encode())
        output, child_end = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", bootstrap.__file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=child_end,
                stderr=child_end,
                env=dict(plan.env),
                start_new_session=True,
            )
        finally:
            os.close(child_end)
        os.set_blocking(output, False)
        child = _Child(
            island=island,
            label=plan.label,
            process=process,
            output=output,
            log=log,
            log_path=plan.log,
        )
        self._loop.add_reader(output, self._read, child)
        return child

    @property
    def running(self) -> set[str]:
        """The islands that have a process now."""
        return set(self._running)

    def terminate(self, island: str) -> None:
        """Ask an island to end."""
        self._asked.add(island)
        self._signal(island, signal.SIGTERM)

    def kill(self, island: str) -> None:
        """End an island at once, with all that it started."""
        self._signal(island, signal.SIGKILL)

    def close(self) -> None:
        """Kill what still runs, and wait until it is gone."""
        for island, children in list(self._running.items()):
            self.kill(island)
            for child in children:
                os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
        self._reap()
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def _signal(self, island: str, number: signal.Signals) -> None:
        for child in self._running.get(island, []):
            if number == signal.SIGKILL:
                _kill_group(child.process.pid)
            # Nobody but _reap waits for it, so the process id is still its own.
            os.kill(child.process.pid, number)

    def _read(self, child: _Child) -> bool:
        """Take one piece of output; return whether there may be more."""
        try:
            data = os.read(child.output, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(child.output)
            return False
        with contextlib.suppress(OSError):  # a full disk must not end the training
            child.log.write(data)
        *lines, child.partial = (child.partial + data).split(b"\n")
        if len(child.partial) > LONGEST_LINE_BYTES:
            lines.append(child.partial)
            child.partial = b""
        for line in lines:
            self._emit(child, line)
        return True

    def _emit(self, child: _Child, line: bytes) -> None:
        text = line[:LONGEST_LINE_BYTES].decode("utf-8", errors="replace")
        child.tail.append(text)
        self._on_line(child.label, text)

    def _reap(self) -> None:
        for child in [child for children in self._running.values() for child in children]:
            pid = child.process.pid
            # Looks, and leaves the process id taken until its group has been ended too.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            # What the script left running must not outlive it, nor hold its output open.
            _kill_group(pid)
            child.process.wait()
            self._end_output(child)
            self._ended(child)

    def _ended(self, child: _Child) -> None:
        island, exit_ = child.island, _exit_of(child)
        self._running[island].remove(child)
        if exit_.code or exit_.signal:
            self._failed.setdefault(island, exit_)
            if island not in self._asked:
                self.kill(island)
        if not self._running[island]:
            del self._running[island]
            self._on_exit(self._failed.pop(island, exit_))

    def _end_output(self, child: _Child) -> None:
        pieces = 0
        # Far more than a pipe holds, and an end even if somebody else still writes into it.
        while pieces < 64 and self._read(child):
            pieces += 1
        if child.partial:
            self._emit(child, child.partial)
        self._loop.remove_reader(child.output)
        os.close(child.output)
        child.log.close()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _exit_of(child: _Child) -> Exit:
    status = child.process.returncode
    return Exit(
        island=child.island,
        label=child.label,
        pid=child.process.pid,
        code=max(0, status),
        signal=max(0, -status),
        error=error_line(list(child.tail)) if status > 0 else "",
        log=child.log_path,
        tail=tuple(child.tail),
        refused=last_word(list(child.tail)) if status == NOT_WANTED else "",
    )
