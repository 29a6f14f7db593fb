"""Handles: waiting, awaiting, callbacks, aborting, many at once."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from typing import Any

import pytest
import torch
from island_group import Form, Islands

import atoll

pytestmark = pytest.mark.processes

WAIT_S = 30.0


def sums(islands: Islands, **options: Any) -> list[atoll.Handle[torch.Tensor]]:
    return islands.start(lambda session, rank: session.all_reduce(torch.ones(3), **options))


def test_many_are_awaited_at_once(islands: Islands) -> None:
    async def main() -> list[torch.Tensor]:
        handles = []
        for number in range(40):
            for session in islands.sessions:
                source = torch.full((200 + number,), float(number))
                handles.append(
                    session.all_reduce(source, channel=number % 5, priority=number % 3 - 1)
                )
        return await asyncio.gather(*handles)

    results = asyncio.run(asyncio.wait_for(main(), WAIT_S))
    assert [result[0].item() for result in results[::3]] == [3.0 * n for n in range(40)]
    assert [len(result) for result in results[1::3]] == [200 + n for n in range(40)]


def test_awaiting_does_not_block_the_loop(islands: Islands) -> None:
    async def main() -> torch.Tensor:
        first = islands.sessions[0].all_reduce(torch.ones(3))
        waiting = asyncio.ensure_future(first)
        await asyncio.sleep(0)  # now it waits; the others are called by this very loop
        assert not waiting.done()
        for session in islands.sessions[1:]:
            session.all_reduce(torch.ones(3))
        return await waiting

    assert asyncio.run(asyncio.wait_for(main(), WAIT_S)).tolist() == [3.0] * 3


def test_an_awaited_op_that_is_over_needs_no_loop_turn(islands: Islands) -> None:
    handles = sums(islands)
    for handle in handles:
        handle.wait(WAIT_S)

    async def main() -> torch.Tensor:
        return await handles[0]

    assert asyncio.run(main()).tolist() == [3.0] * 3


def test_awaiting_raises_what_waiting_does(islands: Islands) -> None:
    async def main() -> list[Any]:
        handles = [
            session.all_reduce(torch.ones(3 + rank))
            for rank, session in enumerate(islands.sessions)
        ]
        return await asyncio.gather(*handles, return_exceptions=True)

    for fault in asyncio.run(asyncio.wait_for(main(), WAIT_S)):
        assert isinstance(fault, atoll.errors.MismatchError)


def test_a_cancelled_task_leaves_the_op(islands: Islands) -> None:
    handle = islands.sessions[0].all_reduce(torch.ones(3))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle, 0.02)

    asyncio.run(main())  # its loop is closed when the op ends
    for session in islands.sessions[1:]:
        session.all_reduce(torch.ones(3))
    assert handle.result(WAIT_S).tolist() == [3.0] * 3
    assert [handle.result(WAIT_S).tolist() for handle in sums(islands)] == [[3.0] * 3] * 3


def test_callbacks_run_in_the_control_thread_and_may_fail(
    islands: Islands, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[tuple[Any, str]] = []
    over = threading.Event()

    def fail(handle: Any) -> None:
        raise ValueError("the callback's own")

    def note(handle: Any) -> None:
        called.append((handle, threading.current_thread().name))
        over.set()

    with caplog.at_level(logging.ERROR):
        handle = islands.sessions[0].all_reduce(torch.ones(3))
        handle.add_done_callback(fail)
        handle.add_done_callback(note)
        for session in islands.sessions[1:]:
            session.all_reduce(torch.ones(3))
        assert over.wait(WAIT_S)
    assert called == [(handle, "atoll-control")]
    assert "all-reduce of 3 elements: a callback failed" in caplog.text
    assert "the callback's own" in caplog.text
    handle.add_done_callback(note)  # over: at once, here
    assert called[1] == (handle, threading.current_thread().name)


def test_a_dropped_handle_still_calls_back(islands: Islands) -> None:
    over = threading.Event()
    islands.sessions[0].all_reduce(torch.ones(3)).add_done_callback(lambda handle: over.set())
    gc.collect()
    for session in islands.sessions[1:]:
        session.all_reduce(torch.ones(3))
    assert over.wait(WAIT_S)


def test_tensors_live_as_long_as_the_op(islands: Islands) -> None:
    source = torch.ones(100_000)
    gone = weakref.ref(source)
    handle = islands.sessions[0].all_reduce(source)
    del source
    gc.collect()
    assert gone() is not None
    for session in islands.sessions[1:]:
        session.all_reduce(torch.ones(100_000))
    kept = weakref.ref(handle.result(WAIT_S))
    gc.collect()
    assert gone() is None
    del handle
    gc.collect()
    assert kept() is None  # without waiting for the op's event


def test_only_what_is_awaited_wakes_the_control_thread(
    islands: Islands, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = islands.sessions[0]
    engine = session.engine
    watched: list[int] = []

    class Engine:
        def watch(self, op: int) -> None:
            watched.append(op)
            engine.watch(op)

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

    with monkeypatch.context() as patch:
        patch.setattr(session._ops(), "engine", Engine())
        for handle in sums(islands):
            handle.wait(WAIT_S)
        assert watched == []
        over = threading.Event()
        first = session.all_reduce(torch.ones(3))
        first.add_done_callback(lambda handle: over.set())
        assert watched == [first._op]
        for other in islands.sessions[1:]:
            other.all_reduce(torch.ones(3))
        assert over.wait(WAIT_S)


def test_abort_fails_it_everywhere(islands: Islands) -> None:
    first = islands.sessions[0].all_reduce(torch.ones(3), channel=4)
    assert not first.done()
    assert first.outcome is None
    assert "in flight" in repr(first)
    first.abort()
    rest = [session.all_reduce(torch.ones(3), channel=4) for session in islands.sessions[1:]]
    for handle in (first, *rest):
        with pytest.raises(atoll.errors.OpAborted):
            handle.wait(WAIT_S)
        assert handle.done()
        assert handle.outcome is not None
        assert handle.outcome.code == "aborted"
    assert [handle.result(WAIT_S).tolist() for handle in sums(islands, channel=4)] == [
        [3.0] * 3
    ] * 3


def test_a_deadline_fails_it_everywhere(islands: Islands) -> None:
    first = islands.sessions[0].all_reduce(torch.ones(3), channel=6, timeout_s=0.05)
    with pytest.raises(atoll.errors.DeadlineExceeded, match="not committed by its deadline"):
        first.wait(WAIT_S)
    rest = [session.all_reduce(torch.ones(3), channel=6) for session in islands.sessions[1:]]
    for handle in rest:
        with pytest.raises(atoll.errors.DeadlineExceeded, match="not committed by its deadline"):
            handle.wait(WAIT_S)


def test_options_reach_the_engine(islands: Islands, monkeypatch: pytest.MonkeyPatch) -> None:
    session = islands.sessions[0]
    engine = session.engine
    said: dict[str, Any] = {}

    class Engine:
        def all_reduce(self, *arguments: Any, **options: Any) -> int:
            said.update(options)
            return engine.all_reduce(*arguments, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

    options: dict[str, Any] = {"codec": "int8", "plan": "direct", "weight": 2.0, "op": "avg"}
    with monkeypatch.context() as patch:
        patch.setattr(session._ops(), "engine", Engine())
        first = session.all_reduce(
            torch.ones(3), priority=7, timeout_s=12, seed=3, rounding="stochastic", **options
        )
    for other in islands.sessions[1:]:
        other.all_reduce(torch.ones(3), rounding="stochastic", **options)
    first.wait(WAIT_S)
    assert said == {
        "dtype": "float32",
        "reduction": "avg",
        "plan": "direct",
        "codec": "int8",
        "rounding": "stochastic",
        "seed": 3,
        "weight": 2.0,
        "note": 0,
        "priority": 7,
        "timeout_ns": 12 * 10**9,
        "quiet": True,
    }


def test_closing_ends_what_is_awaited(form: Form) -> None:
    session = form(2).sessions[0]

    async def main() -> None:
        handle = session.all_reduce(torch.ones(3))
        called: list[Any] = []
        handle.add_done_callback(called.append)
        waiting = asyncio.ensure_future(handle)
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(session.close, 0.2))
        with pytest.raises(atoll.errors.SessionClosed):
            await waiting
        await closing
        assert called == [handle]

    asyncio.run(asyncio.wait_for(main(), WAIT_S))
