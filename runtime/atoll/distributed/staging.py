"""Tensors on an accelerator: through pinned memory on the host, in the order of the calls.

The caller's stream copies to the host, and goes on; a thread of the group waits for the copies and
starts the ops, one call after the other. Calls on host tensors that come meanwhile wait behind
them, so that all members start the same ops in the same order. The result is copied back by the
stream of whoever is first to see the ops over; others' streams wait for that copy.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from atoll import errors
from atoll.distributed.memory import check_dense

if TYPE_CHECKING:
    from atoll.collectives.handle import Handle
    from atoll.distributed.anybody import AnyReceipt

_SLICE_S = 0.1
"""A wait returns to the interpreter this often, so that Ctrl-C is noticed."""


class Later:
    """Ops that have not been started yet. In a work it stands where handles do."""

    def __init__(self, start: Callable[[], list[Handle[Any] | AnyReceipt]]) -> None:
        self._start = start
        self._handles: list[Handle[Any] | AnyReceipt] = []
        self._fault: Exception | None = None
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._callbacks: list[Callable[[Any], object]] = []

    def begin(self, ready: Callable[[], None]) -> None:
        """Starts the ops when `ready` has returned. What either raises, who waits is told."""
        handles: list[Handle[Any] | AnyReceipt] = []
        fault: Exception | None = None
        try:
            ready()
            handles = self._start()
        except Exception as error:  # noqa: BLE001 - an accelerator's, too; a waiter would hang
            fault = error
        with self._lock:
            self._handles, self._fault = handles, fault
            self._started.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._follow(callback)

    def done(self) -> bool:
        """Whether all of them are over, well or badly."""
        return self._started.is_set() and all(handle.done() for handle in self._handles)

    def wait(self, timeout_s: float | None = None) -> object:
        """As a handle's."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._started.wait(_SLICE_S if end_s is None else _left(end_s)):
            if end_s is not None and time.monotonic() >= end_s:
                raise errors.DeadlineExceeded(f"not started after {timeout_s} s")
        if self._fault is not None:
            raise self._fault
        for handle in self._handles:
            handle.wait(None if end_s is None else max(0.0, end_s - time.monotonic()))
        return None

    def add_done_callback(self, function: Callable[[Any], object]) -> None:
        """Calls it when all of them are over."""
        with self._lock:
            if not self._started.is_set():
                self._callbacks.append(function)
                return
        self._follow(function)

    def _follow(self, function: Callable[[Any], object]) -> None:
        left = len(self._handles)
        counting = threading.Lock()

        def one_over(_: object) -> None:
            nonlocal left
            with counting:
                left -= 1
                last = left == 0
            if last:
                function(self)

        if left == 0:
            function(self)
        for handle in self._handles:
            handle.add_done_callback(one_over)


def _left(end_s: float) -> float:
    return max(0.0, min(_SLICE_S, end_s - time.monotonic()))


class Stage:
    """The host's side of one call's tensors. Thread: the caller's, until `copied`."""

    def __init__(self) -> None:
        self.device: torch.device | None = None
        self._back: list[tuple[torch.Tensor, torch.Tensor]] = []

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor that the call reads, on the host."""
        if tensor.device.type == "cpu":
            return tensor
        host = self._host(tensor)
        # Lazy conjugates are resolved there: here it would be done before the copy has come.
        host.copy_(tensor.resolve_conj().resolve_neg(), non_blocking=True)
        return host

    def written(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor that the call writes, on the host."""
        if tensor.device.type == "cpu":
            return tensor
        host = self._host(tensor)
        self._back.append((tensor, host))
        return host

    def both(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor that the call reads and writes, on the host."""
        host = self.read(tensor)
        if host is not tensor:
            self._back.append((tensor, host))
        return host

    def copied(self) -> Callable[[], None]:
        """What waits until everything that is read is on the host."""
        if self.device is None:
            return lambda: None
        return torch.accelerator.current_stream(self.device).record_event().synchronize

    def copy_back(self) -> torch.Event | None:
        """By the current stream, which the host does not wait for. Returns what other streams wait
        for before they use what was written; None: nothing was."""
        if not self._back:
            return None
        stream = torch.accelerator.current_stream(self.device)
        for tensor, host in self._back:
            tensor.copy_(host, non_blocking=True)
            tensor.record_stream(stream)  # which may not be the one that its memory belongs to
        return stream.record_event()

    def _host(self, tensor: torch.Tensor) -> torch.Tensor:
        check_dense(tensor)
        self.device = tensor.device
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)


class Line:
    """One call after the other. It is joined from one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], Later] | None] | None = None

    @property
    def idle(self) -> bool:
        """All that have joined have started."""
        return self._waiting == 0

    def join(
        self, ready: Callable[[], None], start: Callable[[], list[Handle[Any] | AnyReceipt]]
    ) -> list[Later]:
        """Starts ops when it is their turn and `ready` has returned."""
        with self._lock:
            self._waiting += 1
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(
                target=self._run, args=(self._calls,), name="atoll-staging", daemon=True
            ).start()
        later = Later(start)
        self._calls.put((ready, later))
        return [later]

    def close(self) -> None:
        """What waits is started still, and fails if its group is over."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    def _run(self, calls: queue.SimpleQueue[tuple[Callable[[], None], Later] | None]) -> None:
        while (call := calls.get()) is not None:
            ready, later = call
            later.begin(ready)
            with self._lock:
                self._waiting -= 1
