"""One command of `atoll up`: started, fed with its environment, read, ended. Owned by the loop."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from atoll_launcher.remote.far_commands import Command

LONGEST_LINE_BYTES = 1 << 16


class Far:
    """`on_line` for each line of output or error, `on_end` once; on the loop's thread.

    It has a session of its own, so that Ctrl-C on the terminal does not cut the connection before
    anything could be said on it.
    """

    def __init__(
        self,
        command: Command,
        log: Path,
        on_line: Callable[[str], None],
        on_end: Callable[[Far], None],
    ) -> None:
        self.log = log
        self.code = 0
        self._command = command
        self._on_line, self._on_end = on_line, on_end
        self._tail: collections.deque[str] = collections.deque(maxlen=20)
        self._process: asyncio.subprocess.Process | None = None
        self._asked: list[str | None] = []  # before there was a process; None: the input's end
        self._running = asyncio.ensure_future(self._run())

    @property
    def pid(self) -> int:
        """Of the process here; 0: it has not been started yet."""
        return 0 if self._process is None else self._process.pid

    @property
    def last_words(self) -> str:
        """The last line that is about an error, or else the last one."""
        lines = [line for line in self._tail if line.strip()]
        errors = [line for line in lines if line.startswith(("atoll: ", "error:"))]
        return (errors or lines or ["it said nothing"])[-1].removeprefix("atoll: ")

    def say(self, word: str) -> None:
        """A line on its standard input."""
        self._ask(word)

    def close_input(self) -> None:
        """What runs over there ends."""
        self._ask(None)

    def kill(self) -> None:
        """Cut the connection."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def end(self, patience_s: float) -> None:
        """Have it end, and wait until it has."""
        self.close_input()
        try:
            await asyncio.wait_for(asyncio.shield(self._running), patience_s)
        except TimeoutError:
            self.kill()
            await self._running

    def _ask(self, word: str | None) -> None:
        if self._process is None:
            self._asked.append(word)
            return
        pipe = self._process.stdin
        if pipe is None or pipe.is_closing():
            return
        if word is None:
            pipe.close()
        else:
            pipe.write(word.encode() + b"\n")

    async def _run(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command.words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=LONGEST_LINE_BYTES,
        )
        self._ask(json.dumps(dict(self._command.env)))
        for word in self._asked:
            self._ask(word)
        await self._read(self._process)
        code = await self._process.wait()
        self.code = code if code >= 0 else 128 - code
        self._on_end(self)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            while True:
                try:
                    line = await process.stdout.readline()
                except ValueError:
                    continue  # longer than the limit; what there was of it is dropped
                if not line:
                    return
                with contextlib.suppress(OSError):  # a full disk must not end the training
                    log.write(line)
                text = line.decode("utf-8", errors="replace").rstrip("\n")
                self._tail.append(text)
                self._on_line(text)
