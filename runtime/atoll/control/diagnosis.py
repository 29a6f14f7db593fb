"""Calls for whoever looks into a job's network: what was measured of links, and the way to here.

Thread: the coordinator's loop. Echo and DialBack cost this process something, so each is bounded,
and all of them together: peers' heartbeats go through the same loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc

from atoll.membership.events import MeasureRequested
from atoll.pb import control_pb2 as pb
from atoll.trust.names import Role

if TYPE_CHECKING:
    from atoll.control.term import Term
    from atoll.control.trust_calls import Trust

MOST_ECHO_BYTES = 1 << 20
ECHO_BYTES_PER_S = 256 << 20
"""Of all callers together: a quarter of what the loop could do at all."""
MOST_PORTS = 4
DIALS = 8
"""At once, of all callers."""
DIAL_S = 2.0
ALREADY_WAITING_S = 1.0


class Diagnosis:
    """What a coordinator answers about networks."""

    def __init__(self, trust: Trust, leading: Callable[[Any], Awaitable[Term]]) -> None:
        """leading: the term, or the call is aborted."""
        self._trust = trust
        self._leading = leading
        self._dials = asyncio.Semaphore(DIALS)
        self._free_at_s = 0.0

    def handlers(self) -> dict[str, Any]:
        """For the service's table."""
        calls: dict[str, tuple[Any, Any]] = {
            "ShowLinks": (self._show_links, pb.ShowLinksRequest),
            "Echo": (self._echo, pb.EchoRequest),
            "DialBack": (self._dial_back, pb.DialBackRequest),
        }
        return {
            name: grpc.unary_unary_rpc_method_handler(
                call,
                request_deserializer=request.FromString,
                response_serializer=lambda reply: reply.SerializeToString(),
            )
            for name, (call, request) in calls.items()
        }

    async def _show_links(self, request: pb.ShowLinksRequest, context: Any) -> pb.ShowLinksReply:
        await self._trust.require(context, *Role)
        term = await self._leading(context)
        if request.measure:
            await term.handled(MeasureRequested())
        _, figures = term.machine.figures()
        begun, measuring = term.machine.measuring()
        reply = pb.ShowLinksReply(measurements=begun, measuring=measuring)
        for (one, other), found in figures.items():
            link = reply.links.add(rate_bytes_per_s=found.rate_bytes_per_s, rtt_s=found.rtt_s)
            # `from` is a word of Python's.
            setattr(link, "from", one)
            link.to = other
        return reply

    async def _echo(self, request: pb.EchoRequest, context: Any) -> pb.EchoReply:
        from atoll import __version__

        await self._trust.require(context, *Role)
        moved = len(request.payload) + request.reply_bytes
        if max(len(request.payload), request.reply_bytes) > MOST_ECHO_BYTES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "that is too much for one echo")
        now_s = time.monotonic()
        self._free_at_s = max(now_s, self._free_at_s) + moved / ECHO_BYTES_PER_S
        if self._free_at_s - now_s > ALREADY_WAITING_S:
            self._free_at_s -= moved / ECHO_BYTES_PER_S
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many echoes; try later")
        await asyncio.sleep(self._free_at_s - now_s if moved > 4096 else 0)
        return pb.EchoReply(
            payload=bytes(request.reply_bytes),
            unix_s=time.time(),
            software_version=__version__,
            seen=self._seen(context),
        )

    async def _dial_back(self, request: pb.DialBackRequest, context: Any) -> pb.DialBackReply:
        """Only to whom it is asked by: nobody can send this process anywhere else."""
        await self._trust.require(context, *Role)
        host = self._seen(context)
        if not host or len(request.ports) > MOST_PORTS or max(request.ports, default=0) > 65535:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{MOST_PORTS} ports at most")
        if self._dials.locked():
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many at once; try later")
        async with self._dials:
            problems = await asyncio.gather(*(_dialled(host, port) for port in request.ports))
        return pb.DialBackReply(problems=problems, seen=host)

    def _seen(self, context: Any) -> str:
        """The caller's address, without a port."""
        caller = self._trust.caller(context)
        if caller is not None:
            return caller.address
        kind, _, rest = unquote(context.peer()).partition(":")
        return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


async def _dialled(host: str, port: int) -> str:
    """What was wrong; empty: it was reached."""
    try:
        async with asyncio.timeout(DIAL_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {DIAL_S:.0f} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""
