"""Receipts from whoever sends first: which send each of them takes.

The core tells of sends that nobody receives yet (`Offered`). A receipt from anybody takes, of the
sends with its tag, the first to arrive that is its sender's next; then it is a receipt like others.

Thread: any; the caller's lock is held during every call of `Waiting`, whose part is pure.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from atoll import errors
from atoll.collectives.handle import Handle

_SLICE_S = 0.1
"""A wait returns to the interpreter this often, so that Ctrl-C is noticed."""


class AnyReceipt:
    """A receipt whose sender is not known yet. In a work it stands where a handle does."""

    def __init__(self, begin: Callable[[int, int], Handle[None]], timeout_ns: int) -> None:
        """begin: starts the receipt from a rank, by a number of the core's."""
        self._begin = begin
        self.end_s = time.monotonic() + timeout_ns / 1e9
        self.rank = -1
        self._handle: Handle[None] | None = None
        self._fault: errors.AtollError | None = None
        self._known = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Any], object]] = []

    def take(self, rank: int, number: int) -> None:
        """Somebody's send is this one's."""
        try:
            handle = self._begin(rank, number)
        except errors.AtollError as fault:
            self.fail(fault)
            return
        self.rank = rank
        self._settle(handle, None)
        for callback in self._callbacks:
            handle.add_done_callback(callback)

    def fail(self, fault: errors.AtollError) -> None:
        """Nobody's send will be this one's."""
        self._settle(None, fault)
        for callback in self._callbacks:
            callback(self)

    def done(self) -> bool:
        """Whether it is over, well or badly."""
        return self._fault is not None or (self._handle is not None and self._handle.done())

    def wait(self, timeout_s: float | None = None) -> object:
        """As a handle's."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._known.wait(_SLICE_S if end_s is None else _left(end_s)):
            if end_s is not None and time.monotonic() >= end_s:
                raise errors.DeadlineExceeded(f"nobody has sent anything after {timeout_s} s")
        if self._fault is not None:
            raise self._fault
        assert self._handle is not None
        return self._handle.wait(None if end_s is None else max(0.0, end_s - time.monotonic()))

    def add_done_callback(self, function: Callable[[Any], object]) -> None:
        """As a handle's."""
        with self._lock:
            if not self._known.is_set():
                self._callbacks.append(function)
                return
        if self._handle is not None:
            self._handle.add_done_callback(function)
        else:
            function(self)

    def _settle(self, handle: Handle[None] | None, fault: errors.AtollError | None) -> None:
        with self._lock:
            self._handle, self._fault = handle, fault
            self._known.set()


def _left(end_s: float) -> float:
    return max(0.0, min(_SLICE_S, end_s - time.monotonic()))


class Waiting:
    """Sends without a receipt, and receipts without a send, of one group."""

    def __init__(self) -> None:
        # tag -> (rank, how many its sender had sent before), in order of arrival
        self._offers: defaultdict[int, dict[tuple[int, int], None]] = defaultdict(dict)
        self._receipts: defaultdict[int, deque[AnyReceipt]] = defaultdict(deque)

    def offered(self, rank: int, tag: int, count: int) -> None:
        """A send has come for which there was no receipt."""
        self._offers[tag][rank, count] = None

    def received(self, rank: int, tag: int, count: int) -> None:
        """A receipt that names its sender has taken this one."""
        self._offers[tag].pop((rank, count), None)

    def add(self, tag: int, receipt: AnyReceipt) -> None:
        """Waits for the first."""
        self._receipts[tag].append(receipt)

    def match(self, tag: int, next_of: Callable[[int], int]) -> tuple[AnyReceipt, int, int] | None:
        """A receipt, and the rank and count of the send that it takes; None: there is no pair.

        next_of: by rank, the count of the next send to be received.
        """
        if not self._receipts[tag]:
            return None
        for rank, count in list(self._offers[tag]):
            if count < next_of(rank):  # taken by a receipt that was quicker than the news of it
                del self._offers[tag][rank, count]
            elif count == next_of(rank):
                del self._offers[tag][rank, count]
                return self._receipts[tag].popleft(), rank, count
        return None

    def take_late(self, now_s: float) -> list[AnyReceipt]:
        """Receipts whose time is over; they wait no more."""
        late: list[AnyReceipt] = []
        for receipts in self._receipts.values():
            for receipt in [each for each in receipts if each.end_s <= now_s]:
                receipts.remove(receipt)
                late.append(receipt)
        return late
