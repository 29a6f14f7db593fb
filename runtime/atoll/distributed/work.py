"""A call's work, as torch.distributed hands it out: ops in flight, and what comes after them.

Threads: any. Whoever is first to see all ops over finishes the work (copies a result to where it
belongs, say); with a future that is the thread that drains the engine's events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from atoll import errors
from atoll.collectives.handle import Handle
from atoll.distributed.anybody import AnyReceipt
from atoll.distributed.staging import Later

Finish = Callable[[], torch.Event | None]
"""What comes after the ops. Returns what a stream waits for before it uses what was written."""


class Work(dist.Work):
    """Ops in flight of one call. Dropping it drops nothing: the ops go on."""

    def __init__(
        self,
        handles: Sequence[Handle[Any] | AnyReceipt | Later],
        outputs: list[torch.Tensor],
        finish: Finish,
        source: Callable[[], int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        """outputs: what the future gives. finish: called once when all ops ended well; on a device
        it may leave work to the current stream. source: the rank that a receipt came from."""
        super().__init__()
        self._handles = handles
        self._outputs = outputs
        self._finish = finish
        self._source = source
        self._device = device
        self._lock = threading.Lock()
        self._over = False
        self._copied: torch.Event | None = None
        self._error: BaseException | None = None
        self._future: torch.futures.Future[Any] | None = None

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Waits for the ops, `timeout` at most (None, zero: as long as they may take).

        Raises DeadlineExceeded when that is over (the ops go on), and when the ops failed: what
        failed them (GroupBroken when a member is gone).
        """
        limit_s = timeout.total_seconds() if timeout else 0.0
        end_s = time.monotonic() + limit_s if limit_s > 0 else None
        for handle in self._handles:
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            handle.wait(left_s)
        self._end()
        self._order()
        if self._error is not None:
            raise self._error
        return True

    def is_completed(self) -> bool:
        """Whether the ops are over, well or badly."""
        if not all(handle.done() for handle in self._handles):
            return False
        self._end()
        return True

    def is_success(self) -> bool:
        """Whether the ops are over and went well."""
        return self.is_completed() and self._error is None

    def exception(self) -> BaseException | None:
        """What failed the ops; None while they are in flight, or went well."""
        return self._error if self.is_completed() else None

    def result(self) -> list[torch.Tensor]:
        """The tensors that the call wrote; waits for them."""
        self.wait()
        return self._outputs

    def synchronize(self) -> None:
        """The same as `wait`."""
        self.wait()

    def source_rank(self) -> int:
        """Of a receipt: from whom; waits for it."""
        self.wait()
        if self._source is None:
            raise errors.MisuseError("only receipts come from somebody")
        return self._source()

    _source_rank = source_rank

    def get_future(self) -> torch.futures.Future[Any]:
        """A future of the written tensors. A failed work's has the error's text."""
        with self._lock:
            if self._future is not None:
                return self._future
            devices: Any = None if self._device is None else [self._device]
            over: torch.futures.Future[Any] = torch.futures.Future(devices=devices)
            # A callback's exception is an error in C++ as well, where set_exception is none.
            self._future = over.then(lambda _: self._value())
            left = len(self._handles)
        counting = threading.Lock()

        def one_over(_: object = None) -> None:
            nonlocal left
            with counting:
                left -= 1
                last = left <= 0
            if last:
                self._end()
                self._order()
                # With the tensors: streams that take them from the future wait for this one.
                over.set_result(self._outputs if self._error is None else None)

        if left == 0:
            one_over()
        for handle in self._handles:
            handle.add_done_callback(one_over)
        return self._future

    def _value(self) -> list[torch.Tensor]:
        if self._error is not None:
            raise self._error
        return self._outputs

    def _end(self) -> None:
        """All ops are over: finishes the work. Once."""
        with self._lock:
            if self._over:
                return
            try:
                for handle in self._handles:
                    handle.wait(0)
                self._copied = self._finish()
            except Exception as error:  # noqa: BLE001 - whoever waits is told, in whatever thread
                self._error = error
            self._over = True
            self._handles, self._finish = (), _nothing  # and the memory on the host

    def _order(self) -> None:
        """The current stream goes on when the result is where it belongs, whichever copies it."""
        if self._copied is not None:
            torch.accelerator.current_stream(self._device).wait_event(self._copied)


def _nothing() -> None:
    """It is done."""
