"""How large packets may be on the way to a coordinator, where larger ones vanish without a word.

A hop that is narrower than both ends believe says so by ICMP ("too big"). Where that is swallowed,
by a firewall most often, connections are made and hang as soon as a packet is full: a black hole
(RFC 2923). It is found by connections whose packets are small from the beginning (TCP_MAXSEG, which
binds both sides), with an echo over each that fills them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from atoll_launcher.diagnosis.probes import Echoes

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

SIZES = (576, 1000, 1200, 1280, 1300, 1320, 1340, 1360, 1380, 1400, 1420, 1440, 1460, 1480, 1492)
"""Packets in bytes, from what IPv4 promises to what tunnels and PPPoE leave of Ethernet's 1500."""
ECHO_BYTES = 1 << 14
"""Several full packets each way."""
PATIENCE_S = 3.0
STEPS = 8
"""Sizes tried at once between two known ones."""
EXACT_BYTES = 4
IPV4_HEADERS, IPV6_HEADERS = 40, 60
"""Of IP and TCP, without options: what TCP_MAXSEG does not count."""
PIECE_BYTES = 1 << 16


async def largest(address: tuple[str, int], identity: Identity | None, mtu: int) -> int | None:
    """The largest packets that pass, in bytes, to EXACT_BYTES; None: none do, or all do. mtu: what
    this end takes the path for."""
    sizes = [size for size in SIZES if size < mtu]
    whole, passed = await asyncio.gather(
        _passes(address, identity, None), _passing(address, identity, sizes)
    )
    if whole or not passed:
        return None
    low = passed[-1]
    high = min(size for size in [*sizes, mtu] if size > low)
    while high - low > EXACT_BYTES:
        steps = min(STEPS, high - low - 1)
        between = [low + (high - low) * step // (steps + 1) for step in range(1, steps + 1)]
        passed = await _passing(address, identity, between)
        low, high = (
            max([low, *passed]),
            min([high, *(size for size in between if size not in passed)]),
        )
    return low


async def _passing(
    address: tuple[str, int], identity: Identity | None, sizes: Sequence[int]
) -> list[int]:
    found = await asyncio.gather(*(_passes(address, identity, size) for size in sizes))
    return [size for size, passed in zip(sizes, found, strict=True) if passed]


async def _passes(address: tuple[str, int], identity: Identity | None, size: int | None) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_S), _narrowed(address, size) as nearer:
            return await Echoes(nearer, identity).comes_back(ECHO_BYTES, within_s=PATIENCE_S)
    except (TimeoutError, OSError, grpc.aio.AioRpcError):
        return False


@contextlib.asynccontextmanager
async def _narrowed(address: tuple[str, int], size: int | None) -> AsyncIterator[str]:
    """HOST:PORT on this machine, from where connections go on to `address` in packets of at most
    `size` bytes, None: as large as it goes. gRPC takes no sockets of others."""
    carrying: list[asyncio.Task[None]] = []

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying.append(asyncio.create_task(_carry(reader, writer, address, size)))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)


async def _carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    address: tuple[str, int],
    size: int | None,
) -> None:
    ends = [writer]
    try:
        made = await _connected(address, size)
        far_reader, far_writer = await asyncio.open_connection(sock=made)
        ends.append(far_writer)
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
    except OSError:
        pass  # whoever called sees its connection end
    finally:
        for end in ends:
            end.transport.abort()


async def _connected(address: tuple[str, int], size: int | None) -> socket.socket:
    is_ipv6 = ":" in address[0]
    made = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
    try:
        if size is not None:
            headers = IPV6_HEADERS if is_ipv6 else IPV4_HEADERS
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, size - headers)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except OSError:
        made.close()
        raise
    return made


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()
