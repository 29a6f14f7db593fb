"""Sends the islands' logs to whoever asks the coordinator for them (`atoll logs`).

Thread: the launcher's loop, so that no line falls between what is read from a file and what comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from atoll.pb import control_pb2 as pb
from atoll_launcher.watch.observer import RETRY_S, Observer
from atoll_launcher.watch.plain import printable

PART_LINES = 200
MOST_LINES = 10_000
TAIL_BYTES = 4 << 20
"""Of a log are looked at from its end."""
MAX_WAITING = 1000
"""Parts that a slow path has not taken; what comes then is left out, the files have it."""

_HOPELESS = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """Of one process of an island."""

    island: str
    path: Path


class LogService:
    """`files` by the label of each process, as its lines are shown."""

    def __init__(self, files: Mapping[str, LogFile], observer: Observer) -> None:
        self._files = files
        self._observer = observer
        self._followed: dict[int, frozenset[str]] = {}  # labels, by request
        self._parts: asyncio.Queue[pb.LogPart] = asyncio.Queue(MAX_WAITING)

    async def run(self) -> None:
        """Until cancelled, or the coordinator does not want it."""
        while True:
            try:
                await self._serve(self._observer.stub.Supervise())
            except grpc.aio.AioRpcError as error:
                if error.code() in _HOPELESS:
                    return
            self._followed.clear()
            await asyncio.sleep(RETRY_S)

    def line(self, label: str, text: str) -> None:
        """A process has printed a line, which its log has already."""
        for request, labels in self._followed.items():
            if label in labels:
                self._put(request, label, [text])

    async def _serve(self, call: Any) -> None:
        names = sorted({file.island for file in self._files.values()})
        await call.write(pb.LauncherMessage(islands=pb.LauncherIslands(names=names)))
        self._parts = asyncio.Queue(MAX_WAITING)
        writing = asyncio.ensure_future(self._write(call))
        try:
            while isinstance(command := await call.read(), pb.LauncherCommand):
                if command.HasField("read"):
                    self._read(command.read.request, command.read.what)
                else:
                    self._followed.pop(command.end.request, None)
        finally:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await writing
            call.cancel()

    def _read(self, request: int, what: pb.LogsRequest) -> None:
        labels = [label for label, file in self._files.items() if what.island in ("", file.island)]
        for label in labels:
            lines = last_lines(self._files[label].path, min(what.lines, MOST_LINES))
            for part in _parts(lines):
                self._put(request, label, part)
        if what.follow:
            self._followed[request] = frozenset(labels)
        else:
            self._put_part(pb.LogPart(request=request, end=True))

    def _put(self, request: int, label: str, lines: Sequence[str]) -> None:
        shown = pb.LogLines(label=label, lines=[printable(line) for line in lines])
        self._put_part(pb.LogPart(request=request, lines=shown))

    def _put_part(self, part: pb.LogPart) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._parts.put_nowait(part)

    async def _write(self, call: Any) -> None:
        while True:
            await call.write(pb.LauncherMessage(part=await self._parts.get()))


def _parts(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(lines), PART_LINES):
        yield lines[first : first + PART_LINES]


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last whole lines of a file; none when there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except OSError:
        return []
    whole = data[: data.rfind(b"\n") + 1]
    return [line.decode("utf-8", errors="replace") for line in whole.splitlines()[-count:]]
