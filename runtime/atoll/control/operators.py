"""Calls of operators about one island: leave, be out, show its logs. docs/operate.md.

Logs are on the launchers' machines. A launcher holds a stream (`Supervise`) on which it is asked
for them; nothing is sent that nobody asks for.

Thread: the coordinator's loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from atoll.config import nearest
from atoll.membership.events import DrainRequested, KillRequested
from atoll.pb import control_pb2 as pb
from atoll.trust.names import Role

if TYPE_CHECKING:
    from atoll.control.term import Term
    from atoll.control.trust_calls import Trust

MAX_LAUNCHERS = 4096
MAX_ISLANDS = 1024
"""Of one launcher."""
MAX_WAITING = 1000
"""Parts of logs that a slow reader has not taken; what comes then is left out."""
BEFORE_END_S = 10.0
"""A launcher that has not answered by then is left out, unless the reader follows."""


@dataclass(eq=False, slots=True)
class _Launcher:
    islands: frozenset[str]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    commands: asyncio.Queue[pb.LauncherCommand] = field(default_factory=asyncio.Queue)


@dataclass(eq=False, slots=True)
class _Reading:
    launchers: set[_Launcher]
    parts: asyncio.Queue[tuple[_Launcher, pb.LogPart]]


class Operators:
    """The calls; made by the server, which hands in who may call and who leads."""

    def __init__(self, trust: Trust, leading: Callable[[Any], Awaitable[Term]]) -> None:
        self._trust = trust
        self._leading = leading
        self._launchers: set[_Launcher] = set()
        self._readings: dict[int, _Reading] = {}
        self._numbers = itertools.count(1)

    def handlers(self) -> dict[str, Any]:
        """By the method's name, for gRPC."""
        return {
            "Drain": grpc.unary_unary_rpc_method_handler(
                self._drain,
                request_deserializer=pb.DrainRequest.FromString,
                response_serializer=pb.DrainReply.SerializeToString,
            ),
            "Kill": grpc.unary_unary_rpc_method_handler(
                self._kill,
                request_deserializer=pb.KillRequest.FromString,
                response_serializer=pb.KillReply.SerializeToString,
            ),
            "Supervise": grpc.stream_stream_rpc_method_handler(
                self._supervise,
                request_deserializer=pb.LauncherMessage.FromString,
                response_serializer=pb.LauncherCommand.SerializeToString,
            ),
            "Logs": grpc.unary_stream_rpc_method_handler(
                self._logs,
                request_deserializer=pb.LogsRequest.FromString,
                response_serializer=pb.LogLines.SerializeToString,
            ),
        }

    def turn_away(self) -> None:
        """Launchers look for the coordinator that leads now."""
        for launcher in self._launchers:
            launcher.ended.set()

    async def _drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainReply:
        term = await self._named(request.island, context)
        why = request.message or "an operator wants it"
        await term.handled(DrainRequested(island=request.island, message=why))
        return pb.DrainReply()

    async def _kill(self, request: pb.KillRequest, context: Any) -> pb.KillReply:
        term = await self._named(request.island, context)
        why = request.message or "an operator has put it out"
        await term.handled(KillRequested(island=request.island, message=why))
        return pb.KillReply()

    async def _named(self, island: str, context: Any) -> Term:
        """Of an operator's call about an island that is there; aborts others."""
        await self._trust.require(context, Role.OPERATOR, Role.COORDINATOR)
        term = await self._leading(context)
        if island not in term.machine.islands:
            await context.abort(grpc.StatusCode.NOT_FOUND, _unknown(island, term.machine.islands))
        return term

    # --- logs -------------------------------------------------------------------------------------

    async def _supervise(self, _requests: Any, context: Any) -> None:
        await self._trust.require(context, *Role)
        await self._leading(context)
        launcher = await self._introduced(context)
        self._launchers.add(launcher)
        tasks = [
            asyncio.create_task(self._take_parts(launcher, context)),
            asyncio.create_task(_give_commands(launcher, context)),
            asyncio.create_task(launcher.ended.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._launchers.discard(launcher)
            for reading in self._readings.values():
                _put(reading, launcher, pb.LogPart(end=True))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _introduced(self, context: Any) -> _Launcher:
        first = await context.read()
        names = first.islands.names if isinstance(first, pb.LauncherMessage) else []
        if not 0 < len(names) <= MAX_ISLANDS or len(self._launchers) >= MAX_LAUNCHERS:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "a launcher first names its islands"
            )
        caller = self._trust.caller(context)
        if caller is not None and caller.is_a(Role.ISLAND):
            refusals = filter(None, (self._trust.refuses_island(caller, name) for name in names))
            if refusal := next(refusals, ""):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        return _Launcher(islands=frozenset(names))

    async def _take_parts(self, launcher: _Launcher, context: Any) -> None:
        while isinstance(message := await context.read(), pb.LauncherMessage):
            reading = self._readings.get(message.part.request)
            if reading is not None and launcher in reading.launchers:
                _put(reading, launcher, message.part)

    async def _logs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogLines]:
        await self._trust.require(context, Role.OPERATOR, Role.COORDINATOR)
        term = await self._leading(context)
        found = {
            one for one in self._launchers if not request.island or request.island in one.islands
        }
        if not found:
            there = term.machine.islands
            known = there | {name for one in self._launchers for name in one.islands}
            if request.island and request.island not in known:
                await context.abort(grpc.StatusCode.NOT_FOUND, _unknown(request.island, known))
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "no launcher (atoll run) of it is connected; look for its log on its own machine",
            )
        number = next(self._numbers)
        reading = _Reading(launchers=set(found), parts=asyncio.Queue(MAX_WAITING))
        self._readings[number] = reading
        try:
            for launcher in found:
                read = pb.ReadLogs(request=number, what=request)
                launcher.commands.put_nowait(pb.LauncherCommand(read=read))
            async for lines in _read_on(reading, None if request.follow else BEFORE_END_S):
                yield lines
        finally:
            del self._readings[number]
            for launcher in found:
                ended = pb.LauncherCommand(end=pb.EndLogs(request=number))
                launcher.commands.put_nowait(ended)


async def _read_on(reading: _Reading, limit_s: float | None) -> AsyncIterator[pb.LogLines]:
    while reading.launchers:
        try:
            launcher, part = await asyncio.wait_for(reading.parts.get(), limit_s)
        except TimeoutError:
            return
        if part.lines.lines:
            yield part.lines
        if part.end:
            reading.launchers.discard(launcher)


async def _give_commands(launcher: _Launcher, context: Any) -> None:
    while True:
        await context.write(await launcher.commands.get())


def _put(reading: _Reading, launcher: _Launcher, part: pb.LogPart) -> None:
    if part.end and reading.parts.full():
        reading.parts.get_nowait()  # that it has ended is to be known
    if not reading.parts.full():
        reading.parts.put_nowait((launcher, part))


def _unknown(island: str, known: frozenset[str] | set[str]) -> str:
    if not known:
        return f"no island '{island}': this job has none at the moment"
    near = nearest(island, known)
    hint = f", did you mean '{near}'?" if near else ""
    return f"no island '{island}'{hint}; there are: {', '.join(sorted(known)[:32])}"
