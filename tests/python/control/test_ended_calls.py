"""A coordinator that has stopped leaves nothing of gRPC's behind in its loop."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from atoll.control import channel
from atoll.control.server import CoordinatorServer
from atoll.control.server_options import ServerOptions
from atoll.membership.events import CoordinatorOptions
from atoll.pb import control_pb2 as pb

CALLERS, TIMES = 4, 40


def call_until_it_is_gone(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        status = opened.unary_unary(
            f"/{channel.SERVICE}/Status",
            request_serializer=pb.StatusRequest.SerializeToString,
            response_deserializer=pb.StatusReply.FromString,
        )
        try:
            while True:
                status(pb.StatusRequest())
        except grpc.RpcError:
            return


async def called_and_stopped() -> list[asyncio.Task[object]]:
    """Tasks of calls that came when it had begun to stop."""
    options = ServerOptions(
        coordinator=CoordinatorOptions(job="reef"), listen="127.0.0.1:0", metrics_port=0
    )
    server = CoordinatorServer(options)
    port = await server.start()
    callers = [threading.Thread(target=call_until_it_is_gone, args=(port,)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    await asyncio.sleep(0.05)
    await server.stop()
    left = [t for t in asyncio.all_tasks() if "rpc" in getattr(t.get_coro(), "__name__", "")]
    await asyncio.to_thread(lambda: [caller.join() for caller in callers])
    return left


def test_its_loop_may_be_closed_at_once() -> None:
    for _ in range(TIMES):
        assert asyncio.run(called_and_stopped()) == []


def test_a_call_that_never_ends_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CALLS_END_S", 0.05)

    async def _schedule_rpc_coro() -> None:  # as gRPC calls it
        await asyncio.Event().wait()

    async def stopped() -> bool:
        task = asyncio.create_task(_schedule_rpc_coro())
        await asyncio.sleep(0)
        await channel.ended_calls()
        return task.done()

    assert not asyncio.run(stopped())
