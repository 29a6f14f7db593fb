"""Exchanges that run while the model computes: one after the other, in a thread of their own.

Threads: `start` and `result` are the user's. What runs in the thread holds the interpreter lock
only between calls of torch and the core that release it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_LOOK_S = 0.5
"""Who waits returns to the interpreter this often, so that Ctrl-C is noticed."""


class Flight(Protocol[T_co]):
    """Something under way that comes to a result."""

    def done(self) -> bool:
        """Whether `result` returns at once."""

    def result(self) -> T_co:
        """Waits for it; raises what it raised."""


class Inline(Generic[T]):
    """Nothing runs before somebody asks for the result, who then runs it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work

    def done(self) -> bool:
        return False

    def result(self) -> T:
        return self._work()


class _Task(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._over = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # noqa: BLE001 - the thread's top: raised where it is awaited
            self._error = error
        self._over.set()

    def done(self) -> bool:
        return self._over.is_set()

    def result(self) -> T:
        while not self._over.wait(_LOOK_S):
            pass
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class Background:
    """The thread `atoll-exchange`, which starts with the first flight and lives as long as this."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[_Task[object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], T]) -> Flight[T]:
        """Runs `work` after all that was started before."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=_run, args=(self._tasks,), name="atoll-exchange", daemon=True
            )
            self._thread.start()
        task = _Task(work)
        self._tasks.put(task)  # type: ignore[arg-type]
        return task

    def __del__(self) -> None:
        self._tasks.put(None)


def _run(tasks: queue.SimpleQueue[_Task[object] | None]) -> None:
    while (task := tasks.get()) is not None:
        task.run()
        del task  # its buffers are not kept until the next one comes
