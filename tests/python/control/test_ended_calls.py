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
TIMEOUT_S = 20.0


def call_until_it_is_gone(port: int, answered: threading.Event) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        status = opened.unary_unary(
            f"/{channel.SERVICE}/Status",
            request_serializer=pb.StatusRequest.SerializeToString,
            response_deserializer=pb.StatusReply.FromString,
        )
        try:
            while True:
                status(pb.StatusRequest())
                answered.set()
        except grpc.RpcError:
            return


async def called_and_stopped() -> list[asyncio.Task[object]]:
    """Tasks of calls that came when it had begun to stop."""
    options = ServerOptions(
        coordinator=CoordinatorOptions(job="reef"), listen="127.0.0.1:0", metrics_port=0
    )
    server = CoordinatorServer(options)
    port = await server.start()
    answered = [threading.Event() for _ in range(CALLERS)]
    callers = [threading.Thread(target=call_until_it_is_gone, args=(port, e)) for e in answered]
    for caller in callers:
        caller.start()
    for event in answered:
        assert await asyncio.to_thread(event.wait, TIMEOUT_S)
    await server.stop()
    left = [t for t in asyncio.all_tasks() if "rpc" in getattr(t.get_coro(), "__name__", "")]
    await asyncio.to_thread(lambda: [caller.join() for caller in callers])
    return left


def test_its_loop_may_be_closed_at_once() -> None:
    """A call must come in the very moment: one time in a hundred, so there are many."""
    for _ in range(TIMES):
        assert asyncio.run(called_and_stopped()) == []


@pytest.mark.parametrize("ends", [True, False])
def test_calls_are_waited_for_and_not_for_ever(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    monkeypatch.setattr(channel, "CALLS_END_S", TIMEOUT_S if ends else 0.05)

    async def _schedule_rpc_coro(over: asyncio.Event) -> None:  # as gRPC calls it
        await over.wait()

    async def stopped() -> bool:
        over = asyncio.Event()
        task = asyncio.create_task(_schedule_rpc_coro(over))
        if ends:
            asyncio.get_running_loop().call_later(0.01, over.set)
        await channel.ended_calls()
        return task.done()

    assert asyncio.run(stopped()) == ends
