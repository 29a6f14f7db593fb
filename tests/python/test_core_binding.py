"""The extension module: what it refuses, what it does, and what it keeps alive."""

from __future__ import annotations

import gc
import select
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import pytest

from atoll import _core

PATIENCE_S = 30.0
PATIENCE_NS = int(PATIENCE_S * 1e9)
SECRET = bytes(range(32))

E = TypeVar("E")


def peer_of(number: int) -> bytes:
    return bytes([number]) * 16


def engine_of(number: int, **options: Any) -> _core.Engine:
    return _core.Engine(peer=peer_of(number), secret=SECRET, **options)


def await_event(engine: _core.Engine, kind: type[E]) -> E:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        readable, _, _ = select.select([engine.event_fd], [], [], deadline - time.monotonic())
        assert readable, f"no {kind.__name__} in time"
        for event in engine.take_events():
            if isinstance(event, kind):
                return event


@pytest.fixture(params=["tcp", "shm"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(transport: str) -> Iterator[tuple[_core.Engine, _core.Engine]]:
    old, young = (engine_of(number, shared_memory=transport == "shm") for number in (1, 2))
    old.expect(peer_of(2))
    young.dial(peer_of(1), "127.0.0.1", old.port)
    assert await_event(old, _core.LinkUp).peer == peer_of(2)
    assert await_event(young, _core.LinkUp).peer == peer_of(1)
    for engine in (old, young):
        engine.install(1, [peer_of(1), peer_of(2)], {}, "abort")
        installed = await_event(engine, _core.Installed)
        assert (installed.epoch, installed.member) == (1, True)
    yield old, young
    old.close()
    young.close()


# ---- refusals ------------------------------------------------------------------------------------


def test_refusals_are_one_sentence_and_carry_a_code() -> None:
    with pytest.raises(_core.CoreError, match=r"^peer id must be 16 bytes, got 3$") as refused:
        _core.Engine(peer=b"abc", secret=SECRET)
    assert refused.value.code == "invalid"
    with pytest.raises(_core.CoreError, match=r"^secret must be 32 bytes, got 0$"):
        _core.Engine(peer=peer_of(1), secret=b"")
    engine = engine_of(1)
    message = rf"^port {engine.port} on 127\.0\.0\.1 is in use$"
    with pytest.raises(_core.CoreError, match=message) as refused:
        engine_of(2, bind_port=engine.port)
    assert refused.value.code == "io"
    assert refused.value.sys_errno != 0
    with pytest.raises(_core.CoreError, match='kind must be "drain" or "abort", got "halt"'):
        engine.fence(1, "halt")
    with pytest.raises(_core.CoreError, match=r"plan must be one of auto, ring, direct, .*tree"):
        engine.all_reduce(0, 0, 0, 0, plan="tree")
    with pytest.raises(_core.CoreError, match="must not be 0"):
        engine.all_reduce(0, 0, 0, 4)
    with pytest.raises(_core.CoreError, match="multiple of 4 bytes"):
        engine.all_reduce(0, 6, 64, 4)
    with pytest.raises(_core.CoreError, match="input and output must not overlap"):
        engine.all_reduce(0, 64, 68, 4)
    with pytest.raises(_core.CoreError, match="multiple of 2 bytes"):
        engine.all_reduce(0, 7, 64, 4, dtype="bfloat16")
    with pytest.raises(_core.CoreError, match=r"dtype must be one of float32, .*, got \"bool\""):
        engine.all_reduce(0, 64, 128, 4, dtype="bool")
    with pytest.raises(_core.CoreError, match='codec "morse" is not known'):
        engine.all_reduce(0, 64, 128, 4, codec="morse")
    with pytest.raises(_core.CoreError, match="reduction must be one of sum, avg, min, max"):
        engine.reduce_scatter(0, 64, 128, 4, 4, reduction="mean")
    with pytest.raises(_core.CoreError, match="a view has 1 to"):
        _core.part_bounds(10, 0, "fp32")
    with pytest.raises(_core.CoreError, match="heartbeat_s must be a positive number"):
        engine_of(3, heartbeat_s=-1)
    with pytest.raises(_core.CoreError, match="silence longer than heartbeat"):
        engine_of(3, heartbeat_s=2, silence_s=1)
    engine.close()
    with pytest.raises(_core.CoreError, match="the engine is closed") as refused:
        engine.barrier(0)
    assert refused.value.code == "closed"


# ---- ops -----------------------------------------------------------------------------------------


def test_ops_give_exact_results(pair: tuple[_core.Engine, _core.Engine]) -> None:
    inputs = [np.arange(1000, dtype=np.float32) * factor for factor in (1, 2)]
    for plan in ("auto", "ring", "direct"):
        outputs = [np.zeros(1000, np.float32) for _ in pair]
        ops = [
            engine.all_reduce(0, source.ctypes.data, target.ctypes.data, 1000, plan=plan)
            for engine, source, target in zip(pair, inputs, outputs, strict=True)
        ]
        for engine, op, output in zip(pair, ops, outputs, strict=True):
            outcome = engine.wait(op, PATIENCE_NS)
            assert outcome is not None
            assert (outcome.code, outcome.message, outcome.epoch) == ("ok", "", 1)
            assert outcome.elapsed_ns > 0
            engine.release(op)
            np.testing.assert_array_equal(output, inputs[0] + inputs[1])
            assert await_event(engine, _core.OpEnded).op == op

    target = np.zeros(1000, np.float32)
    echo = np.zeros(1000, np.float32)
    ops = [
        pair[0].broadcast(0, inputs[0].ctypes.data, echo.ctypes.data, 1000, peer_of(1)),
        pair[1].broadcast(0, 0, target.ctypes.data, 1000, peer_of(1)),
    ]
    codes = [engine.wait(op, PATIENCE_NS) for engine, op in zip(pair, ops, strict=True)]
    assert [outcome and outcome.code for outcome in codes] == ["ok", "ok"]
    np.testing.assert_array_equal(target, inputs[0])

    ops = [
        engine.exchange(0, source.ctypes.data, output.ctypes.data, 1000, partner, 7)
        for engine, source, output, partner in zip(
            pair, inputs, (echo, target), (peer_of(2), peer_of(1)), strict=True
        )
    ]
    for engine, op in zip(pair, ops, strict=True):
        outcome = engine.wait(op, PATIENCE_NS)
        assert outcome is not None
        assert outcome.code == "ok"
    np.testing.assert_array_equal(echo, inputs[1])
    np.testing.assert_array_equal(target, inputs[0])


def test_an_outcome_says_who_contributed_and_how(
    pair: tuple[_core.Engine, _core.Engine],
) -> None:
    inputs = [np.ones(600, np.float32), np.full(600, 3, np.float32)]
    inputs[0][0] = np.nan
    outputs = [np.zeros(600, np.float32) for _ in pair]
    ops = [
        engine.all_reduce(
            0,
            source.ctypes.data,
            target.ctypes.data,
            600,
            reduction="avg",
            plan="ring",
            codec="int8_minmax",
            weight=weight,
            epoch=1,
            priority=3,
            chunk_bytes=1024,
        )
        for engine, source, target, weight in zip(pair, inputs, outputs, (0.5, 1.5), strict=True)
    ]
    non_finite = 0
    for engine, op, output in zip(pair, ops, outputs, strict=True):
        outcome = engine.wait(op, PATIENCE_NS)
        assert outcome is not None
        assert (outcome.code, outcome.plan, outcome.members) == ("ok", "ring", 2)
        assert (outcome.contributors, outcome.total_weight, outcome.saturated) == (2, 2.0, 0)
        non_finite += outcome.non_finite
        np.testing.assert_allclose(output[256:], 2.5, rtol=0.02)
    assert non_finite >= 1
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_an_op_for_another_view_is_refused_on_all(
    pair: tuple[_core.Engine, _core.Engine],
) -> None:
    source = np.ones(4, np.int64)
    targets = [np.zeros(8, np.int64) for _ in pair]
    ops = [
        engine.all_gather(
            0, source.ctypes.data, target.ctypes.data, 4, 8, dtype="int64", epoch=epoch
        )
        for engine, target, epoch in zip(pair, targets, (1, 9), strict=True)
    ]
    for engine, op in zip(pair, ops, strict=True):
        outcome = engine.wait(op, PATIENCE_NS)
        assert outcome is not None
        assert (outcome.code, outcome.epoch, outcome.members) == ("view_changed", 1, 0)


def test_parts_cover_the_vector() -> None:
    assert _core.part_bounds(10, 3, "fp32") == [0, 3, 6, 10]
    assert _core.part_bounds(1000, 3, "two_bit") == [0, 256, 512, 1000]
    assert _core.part_bounds(0, 2, "fp32") == [0, 0, 0]


def test_a_timeout_is_not_an_outcome(pair: tuple[_core.Engine, _core.Engine]) -> None:
    op = pair[0].barrier(0)
    before = time.monotonic()
    assert pair[0].wait(op, 0) is None
    assert pair[0].wait(op, 20_000_000) is None
    assert 0.02 <= time.monotonic() - before < PATIENCE_S
    pair[0].abort(op)
    outcome = pair[0].wait(op, PATIENCE_NS)
    assert outcome is not None
    assert outcome.code == "aborted"

    late = pair[0].barrier(1, timeout_ns=1_000_000)
    outcome = pair[0].wait(late, PATIENCE_NS)
    assert outcome is not None
    assert outcome.code == "deadline"


def test_waiting_lets_other_threads_run(pair: tuple[_core.Engine, _core.Engine]) -> None:
    op = pair[0].barrier(0)
    outcomes: list[_core.Outcome | None] = []
    waiter = threading.Thread(target=lambda: outcomes.append(pair[0].wait(op, PATIENCE_NS)))
    waiter.start()
    other = pair[1].barrier(0)  # this thread runs while that one waits
    assert pair[1].wait(other, PATIENCE_NS) is not None
    waiter.join(PATIENCE_S)
    assert [outcome and outcome.code for outcome in outcomes] == ["ok"]


def test_fences_say_how_far_a_channel_is(pair: tuple[_core.Engine, _core.Engine]) -> None:
    ops = [engine.barrier(3) for engine in pair]
    for engine, op in zip(pair, ops, strict=True):
        assert engine.wait(op, PATIENCE_NS) is not None
    pair[0].fence(5, "drain")
    fenced = await_event(pair[0], _core.Fenced)
    assert (fenced.attempt, fenced.epoch) == (5, 1)
    assert fenced.progress[3] == (1, 1, 1)


def test_dropping_a_peer_is_an_event_on_both_sides(
    pair: tuple[_core.Engine, _core.Engine],
) -> None:
    pair[0].drop(peer_of(2))
    dropped = await_event(pair[0], _core.LinkDown)
    assert (dropped.peer, dropped.reason) == (peer_of(2), "dropped")
    assert await_event(pair[1], _core.LinkDown).reason == "bye"


def test_statistics(transport: str, pair: tuple[_core.Engine, _core.Engine]) -> None:
    ops = [engine.barrier(0) for engine in pair]
    for engine, op in zip(pair, ops, strict=True):
        engine.wait(op, PATIENCE_NS)
    stats = pair[0].stats()
    assert stats.ops_committed == 1
    assert [(link.peer, link.up, link.transport, link.connections) for link in stats.links] == [
        (peer_of(2), True, transport, 1 if transport == "shm" else 2)
    ]
    assert stats.shared_memory_failures == 0
    assert stats.links[0].sent_bytes > 0
    assert stats.rejected_garbage == 0
    pair[0].close()
    assert pair[0].stats().ops_committed == 1


# ---- shared state --------------------------------------------------------------------------------


class Blob:
    """Something that can be watched, with memory to publish."""

    def __init__(self, values: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self.values = values


def publish(engine: _core.Engine, revision: int, size: int) -> weakref.ref[Blob]:
    blob = Blob(np.arange(size, dtype=np.uint8))
    engine.publish(revision, [(blob.values.ctypes.data, size)], blob)
    return weakref.ref(blob)


def test_state_is_fetched(pair: tuple[_core.Engine, _core.Engine]) -> None:
    publish(pair[0], 4, 200)
    pair[0].stats()  # answered after the commands before it
    target = np.zeros(500, np.uint8)
    op = pair[1].fetch(peer_of(1), None, 0, 0, target.ctypes.data, 500, PATIENCE_NS)
    outcome = pair[1].wait(op, PATIENCE_NS)
    assert outcome is not None
    assert (outcome.code, outcome.revision, outcome.sequence) == ("ok", 4, 200)
    np.testing.assert_array_equal(target[:200], np.arange(200, dtype=np.uint8))
    op = pair[1].fetch(peer_of(1), 5, 0, 0, target.ctypes.data, 10, PATIENCE_NS)
    outcome = pair[1].wait(op, PATIENCE_NS)
    assert outcome is not None
    assert (outcome.code, outcome.revision) == ("wrong_revision", 4)


def test_published_memory_is_kept_until_it_is_replaced() -> None:
    engine = engine_of(1)
    first = publish(engine, 1, 100)
    gc.collect()
    assert first() is not None
    second = publish(engine, 2, 100)
    engine.stats()
    engine.take_events()
    assert first() is None
    assert second() is not None
    engine.unpublish()
    engine.stats()
    engine.take_events()
    assert second() is None
    third = publish(engine, 3, 100)
    engine.close()
    assert third() is None
    fourth = publish(engine, 4, 100)  # closed: let go of at once
    assert fourth() is None


def test_an_engine_that_is_deleted_lets_go_of_everything() -> None:
    engine = engine_of(1)
    blob = publish(engine, 1, 100)
    del engine
    gc.collect()
    assert blob() is None


# ---- the kernel ----------------------------------------------------------------------------------


def test_nesterov_step_is_the_formula() -> None:
    random = np.random.default_rng(2311_08105)
    theta, momentum, total = (random.standard_normal(1001).astype(np.float32) for _ in range(3))
    theta_out, momentum_out = np.empty_like(theta), np.empty_like(theta)
    weight, eta, mu = np.float32(0.25), np.float32(0.7), np.float32(0.9)
    _core.nesterov_step(
        theta_out.ctypes.data,
        momentum_out.ctypes.data,
        theta.ctypes.data,
        momentum.ctypes.data,
        total.ctypes.data,
        1001,
        float(weight),
        float(eta),
        float(mu),
    )
    delta = total * weight
    expected = mu * momentum + delta
    np.testing.assert_array_equal(momentum_out, expected)
    np.testing.assert_array_equal(theta_out, theta - eta * (delta + mu * expected))
