"""How an island leaves politely: when it is told to, after its running round. docs/operate.md.

SIGTERM (a spot notice, `atoll run` that ends) and `atoll drain` mean the same. The data of
`Session.batches` end with the running round, and the island leaves the view; a loop of the
program's own looks at `Session.leaving`. When three quarters of `leave_s` are over it leaves in the
middle of whatever it does, and with the last of them the process ends, as it does on a second
SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from atoll.membership.messages import Departure

ONE_NOTICE_S = 1.0
"""A batch system often signals the launcher and its islands both, and the launcher passes it on:
SIGTERMs so close together are one notice."""


def is_success(error: BaseException | None) -> bool:
    """Whether a script that leaves its session by `error` has come to its end."""
    return error is None or (isinstance(error, SystemExit) and not error.code)


def reason_of(error: BaseException | None, leaving: bool) -> Departure:
    """Why a session is left by `error`."""
    if leaving:
        return Departure.DRAINED
    # The others need not care, but who looks at the job does: "finished" would be a lie.
    return Departure.FINISHED if is_success(error) else Departure.CRASHED


def leaving_after(
    batches: Iterator[Any], is_leaving: Callable[[], bool], leave: Callable[[], None]
) -> Iterator[Any]:
    """The batches; then, if they ended because the island is to leave, it does: the others are a
    round further, and a collective that the program still calls would not be theirs."""
    yield from batches
    if is_leaving():
        leave()


class Parting:
    """Whether an island ends its data with the round that is just over: all its shards alike.

    Shards hear at different moments that the island is to leave. Those that torch.distributed joins
    (FSDP, DDP) ask each other at the end of every round, which all of them come to; otherwise each
    goes by what it was told itself.
    """

    def __init__(self, told: Callable[[], bool], shards: int) -> None:
        self._told = told
        self._shards = shards
        self.decided = False

    def __call__(self) -> bool:
        """Called at the end of every round, by all shards."""
        self.decided = self._told() if self._shards == 1 else self._anybody_told()
        return self.decided

    def _anybody_told(self) -> bool:
        import torch
        import torch.distributed as dist

        joined = dist.is_available() and dist.is_initialized()
        if not joined or dist.get_world_size() != self._shards:
            return self._told()
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor([float(self._told())], device=device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told.item())


class SigtermNotice:
    """Takes SIGTERM as a notice to leave, as long as nobody else in this process looks at it."""

    def __init__(self, drain: Callable[[str], None], leave_s: float) -> None:
        self._drain = drain
        self._leave_s = leave_s
        self._told_s: float | None = None
        self._timer: threading.Timer | None = None
        self._installed = False
        is_main = threading.current_thread() is threading.main_thread()
        if leave_s > 0 and is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_signal)
            self._installed = True
            _children.begin()

    def close(self) -> None:
        """SIGTERM ends the process again."""
        if self._timer is not None:
            self._timer.cancel()
        is_main = threading.current_thread() is threading.main_thread()
        # Bound methods are equal when they are of one object.
        if self._installed and is_main and signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._installed:
            _children.end()
        self._installed = False

    def _on_signal(self, number: int, frame: object) -> None:
        # The main thread runs this between two instructions of its own: no lock may be taken that
        # it could hold.
        now_s = time.monotonic()
        if self._told_s is None:
            self._told_s = now_s
            self._drain("SIGTERM")
            self._timer = threading.Timer(self._leave_s, _end_at_once)
            self._timer.daemon = True
            self._timer.start()
        elif now_s - self._told_s > ONE_NOTICE_S:
            _end_by_signal()


class _Children:
    """Forked children have no session: SIGTERM ends them, while this process takes it as a notice.

    The signal is held back during the fork. Python forgets what has come to a child until its first
    line, and the child would live on.
    """

    def __init__(self) -> None:
        self._notices = 0
        self._is_registered = False
        self._held = threading.local()

    def begin(self) -> None:
        self._notices += 1
        if not self._is_registered:
            self._is_registered = True
            os.register_at_fork(
                before=self._hold,
                after_in_parent=self._release,
                after_in_child=self._release_child,
            )

    def end(self) -> None:
        self._notices -= 1

    def _hold(self) -> None:
        if self._notices:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            self._held.mask = mask

    def _release(self) -> None:
        mask = self._held.__dict__.pop("mask", None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _release_child(self) -> None:
        if "mask" in self._held.__dict__:
            self._notices = 0
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._release()


_children = _Children()


def _end_by_signal() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _end_at_once() -> None:
    """From a thread, where no signal's handler can be changed."""
    sys.stderr.write("atoll: SIGTERM came ATOLL_LEAVE_S ago and the program goes on; ended\n")
    sys.stderr.flush()
    os._exit(128 + signal.SIGTERM)
