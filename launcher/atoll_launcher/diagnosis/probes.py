"""What the doctor measures: names, sockets, and echoes of a coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from atoll.control.channel import open_channel
from atoll.control.diagnosis import MOST_ECHO_BYTES
from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc
from atoll_launcher.watch.observer import OPTIONS

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

CONNECT_S = 3.0
ECHO_S = 5.0
RATE_S = 1.0
"""Of each of four measurements of a rate."""
PINGS = 8
LARGE_BYTES = 1 << 16
"""Of an echo: many full packets."""
DIALS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFacts:
    """What the kernel knows of a fresh connection. Bytes and seconds."""

    address: str
    rtt_s: float
    mss: int
    mtu: int
    congestion: str


def resolve(host: str, port: int) -> list[Any]:
    """Addresses of a name, as getaddrinfo has them. Raises OSError."""
    return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)


def connect(found: Sequence[Any]) -> PathFacts:
    """The first of these addresses that takes a connection; the best of three. Raises OSError."""
    problem: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        try:
            times = []
            for _ in range(3):
                with socket.socket(family, kind, protocol) as probe:
                    probe.settimeout(CONNECT_S)
                    began = time.perf_counter()
                    probe.connect(address)
                    times.append(time.perf_counter() - began)
                    info = tcp_info(probe)
                    name = probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            return PathFacts(
                address=str(address[0]),
                rtt_s=min(*times, *([info.rtt_s] if info.rtt_s else [])),
                mss=info.mss,
                mtu=info.mtu,
                congestion=name.rstrip(b"\0").decode(),
            )
        except OSError as error:
            problem = error
    raise problem


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpInfo:
    mss: int
    mtu: int
    rtt_s: float


def tcp_info(connection: socket.socket) -> TcpInfo:
    """Of struct tcp_info in linux/tcp.h: eight bytes, then 32-bit numbers; times in us."""
    raw = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    numbers = struct.unpack(f"{(len(raw) - 8) // 4}I", raw[8:])
    return TcpInfo(mss=numbers[2], mtu=numbers[13], rtt_s=numbers[15] / 1e6)


class Echoes:
    """Calls of one coordinator. Times in seconds, rates in bytes a second."""

    def __init__(self, address: str, identity: Identity | None) -> None:
        self._address, self._identity = address, identity

    @contextlib.asynccontextmanager
    async def _stubs(self, count: int) -> Any:
        """Each with a connection of its own."""
        async with contextlib.AsyncExitStack() as stack:
            yield [
                control_pb2_grpc.CoordinatorStub(
                    await stack.enter_async_context(
                        open_channel(self._address, self._identity, OPTIONS)
                    )
                )
                for _ in range(count)
            ]

    async def small(self) -> tuple[float, float, float, pb.EchoReply]:
        """Round trip of a call, how far its clock is before ours, how unsure that is, the answer.
        Raises AioRpcError."""
        best: tuple[float, float, float, pb.EchoReply] | None = None
        async with self._stubs(1) as (stub,):
            for _ in range(PINGS):
                sent_s, began = time.time(), time.perf_counter()
                reply = await stub.Echo(pb.EchoRequest(), timeout=ECHO_S)
                took_s = time.perf_counter() - began
                if best is None or took_s < best[0]:
                    best = (took_s, reply.unix_s - sent_s - took_s / 2, took_s / 2, reply)
        assert best is not None
        return best

    async def comes_back(self, size: int, *, within_s: float = ECHO_S) -> bool:
        """Whether so many bytes go there and come back. Raises AioRpcError."""
        async with self._stubs(1) as (stub,):
            try:
                request = pb.EchoRequest(payload=bytes(size), reply_bytes=size)
                await stub.Echo(request, timeout=within_s)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return False
                raise
        return True

    async def rate(self, connections: int, *, there: bool) -> float:
        """Over so many connections at once, with one call after the other on each."""
        size = 1 << 16
        moved = 0
        async with self._stubs(connections) as stubs:
            await asyncio.gather(*(stub.Echo(pb.EchoRequest(), timeout=ECHO_S) for stub in stubs))
            began = time.perf_counter()

            async def stream(stub: Any) -> None:
                nonlocal moved
                piece = size
                while (passed_s := time.perf_counter() - began) < RATE_S:
                    call_s = time.perf_counter()
                    request = (
                        pb.EchoRequest(payload=bytes(piece))
                        if there
                        else pb.EchoRequest(reply_bytes=piece)
                    )
                    try:
                        await stub.Echo(request, timeout=ECHO_S)
                    except grpc.aio.AioRpcError as error:
                        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                            await asyncio.sleep(0.05)
                            continue
                        raise
                    moved += piece
                    quick = time.perf_counter() - call_s < 0.2 * (RATE_S - passed_s)
                    piece = min(MOST_ECHO_BYTES, 4 * piece) if quick else piece

            await asyncio.gather(*(stream(stub) for stub in stubs))
            return moved / (time.perf_counter() - began)

    async def dialled_back(self, bind_host: str) -> pb.DialBackReply:
        """What came of having two ports of ours dialled. Raises OSError and AioRpcError."""
        async with contextlib.AsyncExitStack() as stack:
            ports = []
            for _ in range(2):
                server = await asyncio.start_server(lambda _, w: w.close(), bind_host, 0)
                await stack.enter_async_context(server)
                ports.append(server.sockets[0].getsockname()[1])
            (stub,) = await stack.enter_async_context(self._stubs(1))
            reply: pb.DialBackReply = await stub.DialBack(
                pb.DialBackRequest(ports=ports), timeout=ECHO_S
            )
            return reply


async def reach(endpoints: dict[str, list[tuple[str, int]]]) -> dict[str, str]:
    """By island: what was wrong with all of its addresses; empty: one of them was reached."""
    room = asyncio.Semaphore(DIALS)

    async def one(addresses: list[tuple[str, int]]) -> str:
        problem = "it advertises no address that others could dial"
        for host, port in addresses:
            async with room:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        _, writer = await asyncio.open_connection(host.strip("[]"), port)
                except TimeoutError:
                    problem = f"{host}:{port}: no answer within {CONNECT_S:.0f} s"
                except OSError as error:
                    problem = f"{host}:{port}: {os.strerror(error.errno or 0).lower()}"
                else:
                    writer.close()
                    return ""
        return problem

    problems = await asyncio.gather(*map(one, endpoints.values()))
    return dict(zip(endpoints, problems, strict=True))


def kernel(name: str) -> str:
    """A setting under /proc/sys; empty when it cannot be read."""
    try:
        return Path("/proc/sys", name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""


def resent_segments() -> tuple[int, int]:
    """(sent, sent again) by all TCP connections of this machine since it was started."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    names, values = [line for line in lines if line[0] == "Tcp:"]
    known = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return known["OutSegs"], known["RetransSegs"]
