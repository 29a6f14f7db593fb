"""An op in flight, as its caller sees it.

Threads: any. Who waits in `wait` is woken by the engine itself. Only an op that is awaited, or has
a callback, needs whoever drains the engine's events (the session's control thread), which wakes
those who await and runs the callbacks; so only such an op wakes that thread (`Engine.watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from atoll import errors

if TYPE_CHECKING:
    from atoll import _core

logger = logging.getLogger(__name__)

R_co = TypeVar("R_co", covariant=True)

_SLICE_S = 0.1
"""A wait returns to the interpreter this often, so that Ctrl-C and an expulsion are noticed."""
_FINISH_NS = 1_000_000_000
"""The event of an op's end comes a moment before its outcome."""
_NEWS_S = 1.0
"""At most so long until the session, too, knows of what failed an op."""


class Registry(Protocol):
    """What a handle needs of those who keep the ops."""

    engine: _core.Engine

    def settled(self, op: int, kind: str, outcome: _core.Outcome) -> None: ...
    def forget(self, op: int) -> None: ...
    def fault_of(
        self, outcome: _core.Outcome, what: str, bound_to: int
    ) -> errors.AtollError | None: ...


class Handle(Generic[R_co]):
    """An op in flight. Every method may be called from any thread, any number of times.

        total = session.all_reduce(x).result()     # waits
        total = await session.all_reduce(x)        # in asyncio

    Dropping a handle neither waits nor aborts: the op goes on, and its tensors are kept alive.
    """

    def __init__(
        self,
        registry: Registry,
        op: int,
        *,
        kind: str,
        what: str,
        target: R_co,
        buffers: tuple[Any, ...],
        bound_to: int = 0,
    ) -> None:
        """`buffers` are kept alive while the op may touch them; `bound_to` is the epoch that the
        op is for, 0 for any."""
        self._registry = registry
        self._op = op
        self._kind = kind
        self._what = what
        self._target = target
        self._buffers = buffers
        self._bound_to = bound_to
        self._lock = threading.Lock()
        self._outcome: _core.Outcome | None = None
        self._over = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        state = "in flight" if self._outcome is None else self._outcome.code
        return f"<Handle: {self._what}, {state}>"

    @property
    def target(self) -> R_co:
        """Where the result is once the op has committed; not to be read before."""
        return self._target

    @property
    def outcome(self) -> _core.Outcome | None:
        """How the op ended; None while it is in flight. Does not raise for an op that failed.

        Its `epoch` and `members` name the view whose members took part; `contributors` and
        `total_weight` say who brought something; `plan` how it was done; `non_finite` and
        `saturated` count what this member's encoder could not represent.
        """
        return self._take(0)

    def done(self) -> bool:
        """Whether the op is over, well or badly."""
        return self._take(0) is not None

    def wait(self, timeout_s: float | None = None) -> _core.Outcome:
        """Waits until the op has committed and returns its outcome.

        Raises DeadlineExceeded when the time is over (the op goes on and can be waited for again),
        and when the op failed: MismatchError, ViewChanged, DeadlineExceeded, OpAborted, PeerLost,
        Expelled or SessionClosed. After a failure the op's inputs are intact.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = _SLICE_S if end is None else min(_SLICE_S, end - time.monotonic())
            outcome = self._take(max(0, int(left * 1e9)))
            if outcome is not None:
                return self._verdict(outcome)
            if end is not None and time.monotonic() >= end:
                raise errors.DeadlineExceeded(f"{self._what}: not over after {timeout_s} s")

    def result(self, timeout_s: float | None = None) -> R_co:
        """Waits like `wait` and returns the target."""
        self.wait(timeout_s)
        return self._target

    def abort(self) -> None:
        """Fails the op on all members, unless it is already done here."""
        self._registry.engine.abort(self._op)

    def add_done_callback(self, function: Callable[[Handle[Any]], object]) -> None:
        """Calls `function(handle)` when the op is over; at once, here, when it is already.

        Otherwise it is called by the thread that drains the engine's events: it must be quick and
        must not wait for another op. What it raises is logged.
        """

        def call() -> None:
            try:
                function(self)
            except Exception:
                logger.exception("%s: a callback failed", self._what)

        self._when_over(call)

    def __await__(self) -> Generator[Any, None, R_co]:
        """Waits without blocking the running asyncio loop; returns and raises as `result`.

        Cancelling the waiting task leaves the op in flight.
        """
        outcome = self._take(0)
        if not self._over.is_set() and (outcome is None or outcome.code != "ok"):
            loop = asyncio.get_running_loop()
            over = loop.create_future()

            def wake() -> None:
                if not over.done():
                    over.set_result(None)

            def call() -> None:
                with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                    loop.call_soon_threadsafe(wake)

            self._when_over(call)
            yield from over
        return self.result(0)

    # --- for those who keep the ops ---------------------------------------------------------------

    def ended(self) -> None:
        """The engine has let go of the op: wakes those who await, runs the callbacks. Once."""
        self._take(_FINISH_NS)
        with self._lock:
            self._over.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _when_over(self, callback: Callable[[], None]) -> None:
        with self._lock:
            waiting = not self._over.is_set()
            if waiting:
                self._callbacks.append(callback)
        if waiting:
            self._registry.engine.watch(self._op)
        else:
            callback()

    def _take(self, timeout_ns: int) -> _core.Outcome | None:
        if self._outcome is not None:
            return self._outcome
        outcome = self._registry.engine.wait(self._op, timeout_ns)
        if outcome is None:
            return None
        with self._lock:
            first = self._outcome is None
            if first:
                self._outcome = outcome
                self._buffers = ()
        if first:
            self._registry.settled(self._op, self._kind, outcome)
            self._end_unwatched(outcome)
        return self._outcome

    def _end_unwatched(self, outcome: _core.Outcome) -> None:
        """An op that went well, and has nobody to be told, need not wait for its event."""
        with self._lock:
            if outcome.code != "ok" or self._callbacks:
                return
            self._over.set()
        self._registry.forget(self._op)

    def _verdict(self, outcome: _core.Outcome) -> _core.Outcome:
        if outcome.code == "ok":
            return outcome
        # The session learns of the view, or of its end, with the events before this op's: whoever
        # tries again at once must not do so with old news.
        if not self._over.is_set():
            self._registry.engine.watch(self._op)
            self._over.wait(_NEWS_S)
        fault = self._registry.fault_of(outcome, self._what, self._bound_to)
        assert fault is not None
        raise fault
