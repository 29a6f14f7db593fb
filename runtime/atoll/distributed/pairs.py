"""Sends and receipts between two members, as torch.distributed has them.

The messages of one pair, direction and tag arrive in the order in which they were sent. The core
tells ops by a number, so both sides count: the tag is the upper half of it, the count the lower.

A small send is buffered and over at once, as with gloo: who sends before it receives need not wait
for a partner that does the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

import torch

from atoll import errors
from atoll.collectives.handle import Handle
from atoll.distributed.anybody import AnyReceipt, Waiting
from atoll.distributed.fixed import FixedGroup
from atoll.distributed.host import PAIR_CHANNEL, Batch
from atoll.distributed.memory import check_dense, plain
from atoll.distributed.moves import Moves

CHANNEL = PAIR_CHANNEL + 1
BUFFERED_BYTES = 64 << 10
_COUNT = 0xFFFFFFFF


class PairCalls:
    """Of one group. Thread: any."""

    def __init__(self, group: FixedGroup) -> None:
        self._group = group
        self._moves = Moves(group, CHANNEL)
        self._lock = threading.Lock()
        self._sent: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._received: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._buffered: list[Handle[None]] = []
        self._waiting: Waiting | None = None

    def send(self, batch: Batch, tensor: torch.Tensor, rank: int, tag: int) -> None:
        """tensor: any shape and dtype."""
        self.check(rank, tag)
        check_dense(tensor)
        moved = plain(tensor)
        buffered = moved.nbytes <= BUFFERED_BYTES
        if buffered and moved.data_ptr() == tensor.data_ptr():
            moved = moved.clone()
        with self._lock:
            number = self._number(self._sent, rank, tag)
            handle = self._moves.send(moved, rank, number, batch.timeout_ns)
            if buffered:
                self._buffered = [each for each in self._buffered if not each.done()]
                self._buffered.append(handle)
        if not buffered:
            batch.handles.append(handle)

    def receive(self, batch: Batch, tensor: torch.Tensor, rank: int, tag: int) -> None:
        """tensor: any shape and dtype, the sender's number of elements."""
        self.check(rank, tag)
        begin = self._receipt(batch, tensor)
        with self._lock:
            number = self._number(self._received, rank, tag)
            if self._waiting is not None:
                self._waiting.received(rank, tag, number & _COUNT)
            batch.handles.append(begin(rank, number))

    def receive_any(self, batch: Batch, tensor: torch.Tensor, tag: int) -> AnyReceipt:
        """The same, from whoever sends first."""
        self.check(None, tag)
        receipt = AnyReceipt(self._receipt(batch, tensor), batch.timeout_ns)
        with self._lock:
            if self._waiting is None:
                self._waiting = Waiting()
                self._group.listen(CHANNEL, self)
            self._waiting.add(tag, receipt)
        batch.handles.append(receipt)
        self._match(tag)
        return receipt

    # --- for the group, from its thread -----------------------------------------------------------

    def offered(self, rank: int, number: int) -> None:
        """A send has come for which there is no receipt."""
        with self._lock:
            assert self._waiting is not None
            self._waiting.offered(rank, number >> 32, number & _COUNT)
        self._match(number >> 32)

    def tick(self, now_s: float) -> None:
        """Receipts from anybody whose time is over, or whose group is, fail."""
        fault = self._group.alone
        with self._lock:
            assert self._waiting is not None
            late = self._waiting.take_late(now_s if fault is None else math.inf)
        for receipt in late:
            receipt.fail(
                fault or errors.DeadlineExceeded("a receipt from anybody: nobody sent in time")
            )

    # --- within -----------------------------------------------------------------------------------

    def _match(self, tag: int) -> None:
        """Receipts begin outside the lock, but in order, for each is its sender's next."""
        while True:
            with self._lock:
                assert self._waiting is not None
                found = self._waiting.match(tag, lambda rank: self._received[rank, tag])
                if found is None:
                    return
                receipt, rank, count = found
                self._received[rank, tag] = count + 1
            receipt.take(rank, tag << 32 | count)

    def _receipt(self, batch: Batch, tensor: torch.Tensor) -> Callable[[int, int], Handle[None]]:
        """What starts it, from a rank, by a number of the core's."""
        check_dense(tensor)
        into = batch.landing(tensor)
        return lambda rank, number: self._moves.receive(into, rank, number, batch.timeout_ns)

    def flush(self, timeout_s: float) -> None:
        """Waits for the receivers of what is buffered, unless it fails; so long at most."""
        end_s = time.monotonic() + timeout_s
        with self._lock:
            left, self._buffered = self._buffered, []
        for handle in left:
            with suppress(errors.AtollError):
                handle.wait(max(0.0, end_s - time.monotonic()))

    def check(self, rank: int | None, tag: int) -> None:
        """Raises MisuseError for a rank or a tag that cannot be, and what ended the group."""
        if rank == self._group.rank or not 0 <= (rank or 0) < self._group.size:
            raise errors.MisuseError(
                f"rank {rank} is no other member of this group of {self._group.size}"
            )
        if not 0 <= tag < 1 << 32:
            raise errors.MisuseError(f"tag {tag} is no number of 32 bits")
        self._group.check_with(rank)

    @staticmethod
    def _number(counts: defaultdict[tuple[int, int], int], rank: int, tag: int) -> int:
        count = counts[rank, tag]
        counts[rank, tag] += 1
        return tag << 32 | count & _COUNT
