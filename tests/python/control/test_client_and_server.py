"""Clients with real engines and a real coordinator, on loopback in one process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import harness
import pytest

from atoll import errors
from atoll.control.server import CoordinatorServer
from atoll.control.server_options import ServerOptions
from atoll.membership.events import CoordinatorOptions
from atoll.membership.messages import PROTOCOL_VERSION, Departure, Report
from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc

pytestmark = pytest.mark.processes


@pytest.fixture
def coordinator() -> Iterator[harness.Coordinator]:
    with harness.Coordinator(min_islands=2) as running:
        yield running


def test_islands_form_a_view_run_ops_and_leave(coordinator: harness.Coordinator) -> None:
    clients = harness.join(coordinator.port, "abc")
    first = clients[0].membership()
    assert first.holders == {first.peer}
    assert harness.barrier(clients) == ["ok"] * 3
    harness.close(clients)
    departures = [e.departure for e in coordinator.ask(lambda s: s.machine.events(0))]
    assert departures.count(Departure.FINISHED) == 3


def test_a_joiner_comes_in_at_the_op_that_is_next(coordinator: harness.Coordinator) -> None:
    clients = harness.join(coordinator.port, "ab")
    assert harness.barrier(clients) == ["ok"] * 2
    newcomer = harness.client(coordinator.port, "c")
    newcomer.start()
    newcomer.wait(lambda now: len(now.linked) == 2 and bool(now.donors), harness.TIMEOUT_S)
    newcomer.ready()
    now = newcomer.wait(lambda now: now.member, harness.TIMEOUT_S)
    assert dict(now.starts) == {0: 1}
    clients.append(newcomer)
    assert harness.barrier(clients) == ["ok"] * 3
    harness.close(clients)


def test_a_drain_waits_for_the_op_in_flight(coordinator: harness.Coordinator) -> None:
    clients = harness.join(coordinator.port, "ab")
    early = clients[0].engine.barrier(0)
    newcomer = harness.client(coordinator.port, "c")
    newcomer.start()
    newcomer.ready()
    with pytest.raises(errors.DeadlineExceeded):
        newcomer.wait(lambda now: now.member, 0.5)
    late = clients[1].engine.barrier(0)
    assert newcomer.wait(lambda now: now.member, harness.TIMEOUT_S).starts == {0: 1}
    for each, op in zip(clients, (early, late), strict=True):
        outcome = each.engine.wait(op, 10**9)
        assert outcome is not None
        assert (outcome.code, outcome.epoch) == ("ok", 1)
    harness.close([*clients, newcomer])


def test_a_lost_member_is_gone_in_a_moment_and_ops_go_on(coordinator: harness.Coordinator) -> None:
    clients = harness.join(coordinator.port, "abc")
    lost = clients.pop()
    ops = [each.engine.barrier(0) for each in clients]
    began_s = time.monotonic()
    lost.engine.close()
    lost.close()  # without a word: its stream ends
    outcomes = [e.engine.wait(op, 10 * 10**9) for e, op in zip(clients, ops, strict=True)]
    assert [outcome.code for outcome in outcomes if outcome] == ["ok", "ok"]
    assert time.monotonic() - began_s < 2.0
    assert {outcome.epoch for outcome in outcomes if outcome} == {2}
    # The view in which an op was committed is known before the op's end is.
    assert clients[0].membership().history[2].ids == clients[0].membership().history[1].ids[:2]
    assert clients[0].membership().history[1].ids[2] == lost.membership().peer
    harness.close(clients)


def test_a_refusal_says_why(coordinator: harness.Coordinator) -> None:
    with pytest.raises(errors.CannotJoin, match="runs job 'reef', not 'lagoon'"):
        harness.client(coordinator.port, "a", job="lagoon").start()
    clients = harness.join(coordinator.port, "ab")
    with pytest.raises(errors.CannotJoin, match="already running"):
        harness.client(coordinator.port, "a").start()
    harness.close(clients)


def test_no_coordinator_is_one_line_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        lonely = harness.client(port, "a", connect_timeout_s=0.5)
        with pytest.raises(errors.CannotJoin) as caught:
            lonely.start()
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "\n" not in str(caught.value)
    lonely.close()


def test_an_address_that_is_none_is_a_mistake() -> None:
    with pytest.raises(errors.ConfigError, match="HOST:PORT"):
        harness.client(0, "a", coordinator="nowhere")


def test_an_engine_that_cannot_listen_ends_the_start(coordinator: harness.Coordinator) -> None:
    def refuse(peer: bytes, secret: bytes) -> None:
        raise errors.CannotJoin("cannot listen: address in use")

    with pytest.raises(errors.CannotJoin, match="cannot listen"):
        harness.client(coordinator.port, "a", engine_factory=refuse).start()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_fails_as_nobody_expects_ends_the_start(
    coordinator: harness.Coordinator,
) -> None:
    def fail(peer: bytes, secret: bytes) -> None:
        raise OSError("no memory for a ring")

    with pytest.raises(errors.SessionClosed, match="no memory for a ring"):
        harness.client(coordinator.port, "a", engine_factory=fail).start()


def test_an_expelled_peer_wakes_with_the_reason(coordinator: harness.Coordinator) -> None:
    clients = harness.join(coordinator.port, "ab")
    victim = clients.pop()
    waiting = victim.engine.barrier(0)
    # The coordinator's own view of the matter; a real expulsion needs a broken network.
    from atoll.membership import state

    def expel(server: CoordinatorServer) -> None:
        inner = server.machine._state
        peer = inner.peers[victim.membership().peer]
        assert isinstance(inner, state.State)
        inner.lose(peer, Departure.UNREACHABLE, "by the test")

    coordinator.ask(expel)
    with pytest.raises(errors.Expelled, match="by the test"):
        victim.wait(lambda now: False, harness.TIMEOUT_S)
    outcome = victim.engine.wait(waiting, 10**9)
    assert outcome is not None
    assert outcome.code == "closed"
    victim.close()
    assert clients[0].wait(lambda now: now.view.epoch == 2, harness.TIMEOUT_S)
    harness.close(clients)


def test_waiting_ends_at_its_deadline(coordinator: harness.Coordinator) -> None:
    lonely = harness.client(coordinator.port, "a")
    lonely.start()
    lonely.ready()
    with pytest.raises(errors.DeadlineExceeded):
        lonely.wait(lambda now: now.member, 0.2)
    assert lonely.leave(Departure.DRAINED, 5.0)
    lonely.close()
    lonely.close()
    lonely.engine.close()


# --- operators ------------------------------------------------------------------------------------


def test_status_watch_metrics_and_stop(coordinator: harness.Coordinator) -> None:
    clients = harness.join(coordinator.port, "ab")
    for each in clients:
        each.report(Report(round=1, loss=2.5, digest="aa", contributed=True))
    with grpc.insecure_channel(f"127.0.0.1:{coordinator.port}") as channel:
        stub = control_pb2_grpc.CoordinatorStub(channel)
        events = stub.Watch(pb.WatchRequest(after=0))
        kinds = []
        for event in events:
            kinds.append(event.kind)
            assert abs(event.time_s - time.time()) < 60
            if event.kind == "round":
                break
        assert kinds == ["view", "joined", "joined", "round"]
        status = stub.Status(pb.StatusRequest())
        assert (status.job, status.epoch, status.round, status.loss) == ("reef", 1, 1, 2.5)
        assert {peer.state for peer in status.peers} == {"member"}
        stub.Stop(pb.StopRequest(message="enough"))
        assert next(events).kind == "stopping"
    for each in clients:
        with pytest.raises(errors.SessionClosed, match="enough"):
            each.wait(lambda now: False, harness.TIMEOUT_S)
        each.close()
    asyncio.run_coroutine_threadsafe(coordinator.server.wait_stopped(), coordinator._loop).result(
        harness.TIMEOUT_S
    )
    port = coordinator.ask(lambda server: server.site.port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        text = page.read().decode()
    assert 'atoll_coordinator_rounds_total{job="reef"} 1.0' in text
    assert 'atoll_coordinator_view_changes_total{job="reef",reason="formed"} 1.0' in text


def test_a_port_in_use_is_a_mistake_in_the_settings(coordinator: harness.Coordinator) -> None:
    async def start() -> None:
        options = ServerOptions(
            coordinator=CoordinatorOptions(job="other"), listen=f"127.0.0.1:{coordinator.port}"
        )
        await CoordinatorServer(options).start()

    with pytest.raises(errors.ConfigError, match="in use"):
        asyncio.run(start())


# --- strangers ------------------------------------------------------------------------------------

HTTP = b"GET /metrics HTTP/1.1\r\nHost: reef\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize(
    "garbage",
    [b"\x00" * 100, bytes(range(256)) * 40, HTTP, PREFACE + b"\xff" * 9, PREFACE + b"\x00\x40\x00"],
    ids=["zeros", "bytes", "http", "bad frame", "truncated frame"],
)
def test_garbage_on_the_port_disturbs_nobody(
    coordinator: harness.Coordinator, garbage: bytes
) -> None:
    clients = harness.join(coordinator.port, "ab")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stranger = socket.create_connection(("127.0.0.1", coordinator.port))
            stack.enter_context(stranger)
            stranger.sendall(garbage)
        assert harness.barrier(clients) == ["ok", "ok"]
        newcomer = harness.client(coordinator.port, "c")
        newcomer.start()
    assert clients[0].membership().view.epoch == 1
    newcomer.close()
    newcomer.engine.close()
    harness.close(clients)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff",
        b"",
        pb.PeerMessage(
            register=pb.Register(job="reef", island="x", peer_id=b"1")
        ).SerializeToString(),
    ],
    ids=["no message", "empty", "short id"],
)
def test_a_malformed_message_ends_its_own_stream_only(
    coordinator: harness.Coordinator, data: bytes
) -> None:
    clients = harness.join(coordinator.port, "ab")
    with grpc.insecure_channel(f"127.0.0.1:{coordinator.port}") as channel:
        attach = channel.stream_stream(
            "/atoll.pb.Coordinator/Attach",
            request_serializer=lambda item: item,
            response_deserializer=lambda item: item,
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(attach(iter([data])))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert harness.barrier(clients) == ["ok", "ok"]
    assert coordinator.ask(lambda server: server.metrics.malformed._value.get()) == 1
    harness.close(clients)


def test_a_peer_that_takes_nothing_holds_up_nobody(coordinator: harness.Coordinator) -> None:
    clients = harness.join(coordinator.port, "ab")
    with grpc.insecure_channel(f"127.0.0.1:{coordinator.port}") as channel:
        attach = channel.stream_stream(
            "/atoll.pb.Coordinator/Attach",
            request_serializer=pb.PeerMessage.SerializeToString,
            response_deserializer=lambda item: item,
        )
        register = pb.Register(
            protocol_version=PROTOCOL_VERSION, job="reef", island="stuck", peer_id=bytes(16)
        )
        flood = [pb.PeerMessage(register=register)]
        flood += [pb.PeerMessage(heartbeat=pb.Heartbeat())] * 20_000
        call = attach(iter(flood))  # and never reads the answers
        assert harness.barrier(clients) == ["ok", "ok"]
        call.cancel()
    clients[0].wait(lambda now: now.view.epoch == 1, 1.0)
    harness.close(clients)


class Spy:
    """An engine that notes where it was told that the others listen."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.told: dict[bytes, list[tuple[str, int]]] = {}

    def expect(self, peer: bytes, endpoints: list[tuple[str, int]], **more: Any) -> None:
        self.told[peer] = endpoints
        self._engine.expect(peer, endpoints, **more)

    def dial(self, peer: bytes, endpoints: list[tuple[str, int]], **more: Any) -> None:
        self.told[peer] = endpoints
        self._engine.dial(peer, endpoints, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def test_both_ends_of_a_link_know_all_ways_to_the_other(
    coordinator: harness.Coordinator,
) -> None:
    """The older one, which is dialled, too: so it learns at once that a dead process is dead. The
    way that is named first leads nowhere."""

    def spy(peer: bytes, secret: bytes) -> Any:
        return Spy(harness.engine(peer, secret))

    hosts = ("127.77.0.1", "127.0.0.1")  # engines listen at the second
    clients = [
        harness.client(coordinator.port, name, engine_factory=spy, advertise_hosts=hosts)
        for name in "ab"
    ]
    for each in clients:
        each.start()
        each.ready()
    for each in clients:
        each.wait(lambda now: len(now.view.members) == 2, harness.TIMEOUT_S)
    a, b = clients
    engines: list[Any] = [a.engine, b.engine]
    assert engines[0].told == {b.membership().peer: [(host, b.engine.port) for host in hosts]}
    assert engines[1].told == {a.membership().peer: [(host, a.engine.port) for host in hosts]}
    harness.close(clients)
