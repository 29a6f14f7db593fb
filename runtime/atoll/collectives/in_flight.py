"""The engine's ops in flight: what was submitted, with which tensors, and how it ended.

Thread: any. A handle, and with it the op's tensors, is kept here until the engine's `OpEnded`
arrives: `ended` is called by whoever drains the engine's events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from atoll import errors
from atoll.collectives.handle import Handle
from atoll.collectives.link_watch import LinkWatch
from atoll.collectives.options import nanos

if TYPE_CHECKING:
    import torch

    from atoll import _core

T = TypeVar("T")


class Collectives:
    """Submits ops and follows them to their ends."""

    def __init__(
        self,
        engine: _core.Engine,
        *,
        op_timeout_s: float,
        explain: Callable[[errors.AtollError], errors.AtollError],
        members_of: Callable[[int], int] = lambda epoch: 0,
        observe: Callable[[str, _core.Outcome], None] | None = None,
        correct: Callable[[Mapping[bytes, float]], None] | None = None,
    ) -> None:
        """`explain` may replace a fault by what caused it (an expulsion, say); `members_of` says
        how many a view had, 0 when unknown; `observe` gets the kind and outcome of every op;
        `correct` is told what links carry of what was measured of them."""
        self.engine = engine
        self._explain = explain
        self._members_of = members_of
        self._op_timeout_ns = nanos("op_timeout_s", op_timeout_s)
        self._observe = observe
        self._link_watch = None if correct is None else LinkWatch(engine.stats, correct)
        self._lock = threading.Lock()
        self._open: dict[int, Handle[Any]] = {}
        # An op's end may be reported before `start` has learnt its number.
        self._ended_early: set[int] = set()
        # What became of them is known before the events of their ends have come.
        self._forgotten: set[int] = set()
        self._closed = False

    def timeout_ns(self, timeout_s: float | None) -> int:
        """An op's time; None is the session's. Raises MisuseError for what is no time."""
        return self._op_timeout_ns if timeout_s is None else nanos("timeout_s", timeout_s)

    def start(
        self,
        kind: str,
        what: str,
        submit: Callable[[], int],
        *,
        target: T,
        buffers: tuple[Any, ...],
        bound_to: int = 0,
    ) -> Handle[T]:
        """Submits an op on `buffers`, whose result is `target`.

        Raises MisuseError for what the engine refuses, and SessionClosed.
        """
        from atoll import _core

        try:
            op = submit()
        except _core.CoreError as error:
            if error.code == "closed":
                fault = errors.SessionClosed(f"{kind}: the session is closed")
                raise self._explain(fault) from None
            raise errors.MisuseError(f"{kind}: {error}") from None
        handle = Handle(
            self, op, kind=kind, what=what, target=target, buffers=buffers, bound_to=bound_to
        )
        with self._lock:
            over = self._closed or op in self._ended_early  # its event was faster than this line
            self._ended_early.discard(op)
            if not over:
                self._open[op] = handle
        if over:
            handle.ended()
        return handle

    def fetch(
        self,
        donor: bytes,
        *,
        revision: int | None,
        buffer: int,
        offset: int,
        target: torch.Tensor,
        timeout_s: float,
    ) -> Handle[torch.Tensor]:
        """Fills `target` (uint8) from a donor's published buffer."""
        return self.start(
            "fetch",
            f"state from {donor.hex()[:8]}",
            lambda: self.engine.fetch(
                donor,
                revision,
                buffer,
                offset,
                target.data_ptr(),
                target.numel(),
                self.timeout_ns(timeout_s),
            ),
            target=target,
            buffers=(target,),
        )

    def ended(self, op: int) -> None:
        """The engine has let go of the op's buffers (its OpEnded event)."""
        with self._lock:
            handle = self._open.pop(op, None)
            if op in self._forgotten:
                self._forgotten.discard(op)
            elif handle is None:
                self._ended_early.add(op)
        if handle is not None:
            handle.ended()

    def close(self) -> None:
        """The engine is closed, and nobody drains its events any more: ends what is left."""
        with self._lock:
            self._closed = True
            left, self._open = self._open, {}
        for handle in left.values():
            handle.ended()

    # --- for handles ------------------------------------------------------------------------------

    def settled(self, op: int, kind: str, outcome: _core.Outcome) -> None:
        """The outcome was taken: the engine may forget the op."""
        self.engine.release(op)
        if self._observe is not None:
            self._observe(kind, outcome)
        if self._link_watch is not None and outcome.code == "ok":
            self._link_watch.op_over(outcome.epoch, outcome.plan)

    def forget(self, op: int) -> None:
        """Nobody waits for the op's event: its handle need not be kept."""
        with self._lock:
            if self._open.pop(op, None) is not None:
                self._forgotten.add(op)

    def fault_of(
        self, outcome: _core.Outcome, what: str, bound_to: int
    ) -> errors.AtollError | None:
        """The exception that an outcome stands for, or None when the op committed."""
        fault = self._fault(outcome, what, bound_to)
        return None if fault is None else self._explain(fault)

    def _fault(self, outcome: _core.Outcome, what: str, bound_to: int) -> errors.AtollError | None:
        text = f"{what}: {outcome.message or outcome.code}"
        match outcome.code:
            case "ok":
                return None
            case "mismatch":
                return errors.MismatchError(
                    f"{what}: members disagree about this op (kind, size, dtype, reduction, codec "
                    "or plan); check that all islands run the same script with the same options"
                )
            case "view_changed":
                late = bound_to in (0, outcome.epoch)  # it is another member that was
                before = 0 if late else self._members_of(bound_to)
                return errors.ViewChanged(what, before, self._members_of(outcome.epoch))
            case "deadline":
                return errors.DeadlineExceeded(f"{what}: not committed by its deadline")
            case "aborted":
                return errors.OpAborted(f"{what}: aborted, on all members")
            case "closed":
                return errors.SessionClosed(f"{what}: the session was closed")
            case "invalid":
                return errors.MisuseError(text)
            case "wrong_revision":
                return errors.StateUnavailable(text)
            case "peer_lost":
                return errors.PeerLost(what, "its link is gone", outcome.elapsed_ns / 1e9)
            case _:
                return errors.RuntimeFault(text)
