"""The extension module: what it names, what it refuses, and what it keeps alive."""

from __future__ import annotations

import ast
import gc
import re
import select
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from atoll import _core

PATIENCE_S = 30.0
PATIENCE_NS = int(PATIENCE_S * 1e9)
SECRET = bytes(range(32))
STUB = Path(__file__).resolve().parents[2] / "runtime/atoll/_core.pyi"

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


@pytest.fixture
def pair() -> Iterator[tuple[_core.Engine, _core.Engine]]:
    old, young = engine_of(1), engine_of(2)
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


# ---- the stub ------------------------------------------------------------------------------------


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def stub_names(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                names.add(name)
    return public(names)


def stub_classes() -> list[ast.ClassDef]:
    return [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)]


def test_the_stub_names_what_the_module_names() -> None:
    assert stub_names(ast.parse(STUB.read_text()).body) == public(dir(_core))


@pytest.mark.parametrize("stub", stub_classes(), ids=lambda stub: str(stub.name))
def test_the_stub_names_what_the_class_names(stub: ast.ClassDef) -> None:
    own = vars(getattr(_core, stub.name))
    assert stub_names(stub.body) == public(own)


def stub_functions() -> list[tuple[str, ast.FunctionDef]]:
    found: list[tuple[str, ast.FunctionDef]] = []
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            found += [
                (f"{node.name}.{function.name}", function)
                for function in node.body
                if isinstance(function, ast.FunctionDef) and not function.decorator_list
            ]
    return found


@pytest.mark.parametrize(("path", "stub"), stub_functions(), ids=lambda it: str(it))
def test_the_stub_names_the_arguments(path: str, stub: ast.FunctionDef) -> None:
    target: Any = _core
    for part in path.split("."):
        target = getattr(target, part)
    signature = target.__doc__.split(") ->")[0]
    native = re.findall(r"[(,] (?=\w)|(\w+): ", signature)
    arguments = stub.args
    expected = [argument.arg for argument in arguments.args + arguments.kwonlyargs]
    assert [name for name in native if name and name != "self"] == [
        name for name in expected if name != "self"
    ]
    for name, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if isinstance(default, ast.Constant) and default.value is not ...:
            assert f"= {default.value!r}" in signature.split(f"{name.arg}: ")[1].split(",")[0]


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
    with pytest.raises(_core.CoreError, match='plan must be "auto", "ring" or "direct"'):
        engine.all_reduce(0, 0, 0, 0, plan="tree")
    with pytest.raises(_core.CoreError, match="must not be 0"):
        engine.all_reduce(0, 0, 0, 4)
    with pytest.raises(_core.CoreError, match="multiple of 4 bytes"):
        engine.all_reduce(0, 6, 64, 4)
    with pytest.raises(_core.CoreError, match="must not overlap"):
        engine.all_reduce(0, 64, 68, 4)
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


def test_statistics(pair: tuple[_core.Engine, _core.Engine]) -> None:
    ops = [engine.barrier(0) for engine in pair]
    for engine, op in zip(pair, ops, strict=True):
        engine.wait(op, PATIENCE_NS)
    stats = pair[0].stats()
    assert stats.ops_committed == 1
    assert [(link.peer, link.up, link.connections) for link in stats.links] == [
        (peer_of(2), True, 2)
    ]
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
