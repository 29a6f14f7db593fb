"""`atoll drain`, `atoll kill`, `atoll logs`: what an operator asks of one island."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from atoll.control.channel import open_channel
from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc
from atoll.trust.identity import Identity
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.watch.observer import CALL_TIMEOUT_S, OPTIONS, find_leader, unreachable


def drain(address: str, island: str, why: str, identity: Identity | None) -> None:
    """Ask an island to leave politely. Raises LauncherError."""

    async def ask(stub: Any) -> None:
        await stub.Drain(pb.DrainRequest(island=island, message=why), timeout=CALL_TIMEOUT_S)

    asyncio.run(_ask(address, identity, ask))


def kill(address: str, island: str, why: str, identity: Identity | None) -> None:
    """Put an island out of its job. Raises LauncherError."""

    async def ask(stub: Any) -> None:
        await stub.Kill(pb.KillRequest(island=island, message=why), timeout=CALL_TIMEOUT_S)

    asyncio.run(_ask(address, identity, ask))


def logs(address: str, island: str, *, lines: int, follow: bool, identity: Identity | None) -> None:
    """Print the last lines of an island's logs, or of all. Raises LauncherError."""

    async def ask(stub: Any) -> None:
        request = pb.LogsRequest(island=island, lines=lines, follow=follow)
        async for part in stub.Logs(request):
            sys.stdout.write("".join(f"{part.label} | {line}\n" for line in part.lines))
            sys.stdout.flush()

    asyncio.run(_ask(address, identity, ask))


async def _ask(
    address: str, identity: Identity | None, ask: Callable[[Any], Awaitable[None]]
) -> None:
    leader, _ = await find_leader(address, identity)
    async with open_channel(leader, identity, OPTIONS) as channel:
        try:
            await ask(control_pb2_grpc.CoordinatorStub(channel))
        except grpc.aio.AioRpcError as error:
            match error.code():
                case grpc.StatusCode.NOT_FOUND:
                    raise LauncherError(str(error.details())) from None
                case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.FAILED_PRECONDITION:
                    raise LauncherError(str(error.details()), exit_codes.CANNOT_JOIN) from None
                case _:
                    raise unreachable(leader, error) from None
