"""What both ends of the control plane must agree on about gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc

from atoll.control.convert import MAX_MESSAGE_BYTES, peer_message_to_pb
from atoll.membership.messages import PeerMessage
from atoll.pb import control_pb2 as pb

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

SERVICE = "atoll.pb.Coordinator"

BREATH_BYTES = 64 << 10
"""What is that long already is sent as it is."""

CALLS_END_S = 1.0

_BOTH: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES + BREATH_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES + BREATH_BYTES),
    # A path that swallows packets is noticed by pings; off by default at clients.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_BOTH,
    # A server tolerates one idle ping in five minutes unless told otherwise.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # Two coordinators on one port would share its connections between them.
    ("grpc.so_reuseport", 0),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_BOTH,
    # Every attempt to connect is a new one; the peer's machine decides when.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


def open_channel(
    address: str,
    identity: Identity | None,
    options: Sequence[tuple[str, Any]] = CHANNEL_OPTIONS,
) -> grpc.aio.Channel:
    """To a coordinator: mutual TLS with an identity, else in the clear."""
    if identity is None:
        return grpc.aio.insecure_channel(address, options)
    from atoll.trust.identity import channel_credentials, channel_options

    return grpc.aio.secure_channel(address, channel_credentials(identity), channel_options(options))


async def say(call: Any, outgoing: asyncio.Queue[PeerMessage]) -> None:
    """Writes what is put into the queue until the stream ends; whoever reads it learns why."""
    with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
        while True:
            await call.write(breath(peer_message_to_pb(await outgoing.get()), outgoing))


def breath(first: pb.PeerMessage, waiting: asyncio.Queue[PeerMessage]) -> pb.PeerMessage:
    """With it goes what has come while the one before was written, for each message takes its time
    on the way through two processes, however short it is."""
    size = first.ByteSize()
    while size < BREATH_BYTES and not waiting.empty():
        following = peer_message_to_pb(waiting.get_nowait())
        size += following.ByteSize()
        first.also.append(following)
    return first


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Takes the noise out of several grpc.aio loops in one process."""
    # Several grpc.aio loops in one process share a wake-up pipe; whoever comes second finds it
    # empty. Known and harmless: https://github.com/grpc/grpc/issues/25364
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


async def ended_calls() -> None:
    """After a server has stopped: returns when gRPC's tasks for its calls have ended, too. They
    take a moment longer, and print a traceback when their loop is closed before."""
    tasks = [task for task in asyncio.all_tasks() if _name_of(task) == "_schedule_rpc_coro"]
    if tasks:
        await asyncio.wait(tasks, timeout=CALLS_END_S)


def _name_of(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__name__", "")
