"""The native engine as Python objects: tensors in, handles out, errors of the one tree.

Thread: any. The buffers of an op are kept alive here until the engine's `OpEnded` arrives, which
`ended` (called by whoever drains the engine's events) or a finished `wait` takes note of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from atoll import errors

if TYPE_CHECKING:
    import torch

    from atoll import _core

MAX_CHANNELS = 4096
"""As in csrc/atoll/base/limits.h."""

_SLICE_S = 0.1
"""A wait returns to the interpreter this often, so that Ctrl-C and an expulsion are noticed."""


def fault_of(outcome: _core.Outcome, what: str) -> errors.AtollError | None:
    """The exception that an outcome stands for, or None when the op committed."""
    text = f"{what}: {outcome.message or outcome.code}"
    match outcome.code:
        case "ok":
            return None
        case "mismatch":
            return errors.MismatchError(
                f"{what}: members disagree about this op (kind, size, dtype or plan); "
                "check that all islands run the same script with the same options"
            )
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


class Handle:
    """An op in flight. `wait` may be called from any thread, any number of times."""

    def __init__(
        self, collectives: Collectives, op: int, what: str, on_end: Callable[[float], None] | None
    ) -> None:
        self._collectives = collectives
        self._op = op
        self._what = what
        self._on_end = on_end
        self._lock = threading.Lock()
        self._outcome: _core.Outcome | None = None
        self.target: torch.Tensor | None = None
        """Where the result is, for those who did not bring their own."""

    def done(self) -> bool:
        """Whether the op is over, well or badly."""
        return self._poll(0) is not None

    def wait(self, timeout_s: float | None = None) -> _core.Outcome:
        """Waits until the op has committed.

        Returns the outcome, whose `epoch` names the view that contributed. Raises
        DeadlineExceeded when the time is over (the op goes on and can be waited for again),
        MismatchError, OpAborted, PeerLost, Expelled or SessionClosed when the op failed.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = _SLICE_S if end is None else min(_SLICE_S, end - time.monotonic())
            outcome = self._poll(max(0, int(left * 1e9)))
            if outcome is not None:
                fault = fault_of(outcome, self._what)
                if fault is not None:
                    raise self._collectives.explain(fault)
                return outcome
            if end is not None and time.monotonic() >= end:
                raise errors.DeadlineExceeded(f"{self._what}: not over after {timeout_s} s")

    def abort(self) -> None:
        """Fails the op on all members, unless it is already done here."""
        self._collectives.engine.abort(self._op)

    def _poll(self, timeout_ns: int) -> _core.Outcome | None:
        if self._outcome is not None:
            return self._outcome
        outcome = self._collectives.engine.wait(self._op, timeout_ns)
        if outcome is None:
            return None
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome
                self._collectives.finish(self._op)
                if self._on_end is not None:
                    self._on_end(outcome.elapsed_ns / 1e9)
        return self._outcome


class Collectives:
    """The engine's ops on tensors. Tensors are checked here; the engine sees addresses."""

    def __init__(
        self,
        engine: _core.Engine,
        *,
        op_timeout_s: float,
        explain: Callable[[errors.AtollError], errors.AtollError],
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        """`explain` may replace a fault by what caused it (an expulsion, say); `observe` gets the
        kind and seconds of every op that is over."""
        self.engine = engine
        self.explain = explain
        self._op_timeout_ns = int(op_timeout_s * 1e9)
        self._observe = observe
        self._lock = threading.Lock()
        self._alive: dict[int, tuple[Any, ...]] = {}
        # An op's event and the taking of its outcome come in any order, the event even before
        # `_start` has seen its number: what came first leaves a note for the other.
        self._ended_early: set[int] = set()
        self._finished: set[int] = set()

    def all_reduce(
        self, source: torch.Tensor, target: torch.Tensor, *, channel: int, plan: str
    ) -> Handle:
        """Sum of all members' `source` in every member's `target`."""
        check_channel(channel)
        count = _pair(source, target)
        op = self._start(
            "all_reduce",
            lambda: self.engine.all_reduce(
                channel,
                source.data_ptr(),
                target.data_ptr(),
                count,
                plan=plan,
                timeout_ns=self._op_timeout_ns,
            ),
            (source, target),
        )
        return self._handle(op, "all_reduce", f"all-reduce of {count} elements")

    def broadcast(
        self, source: torch.Tensor, target: torch.Tensor, *, root: bytes, channel: int
    ) -> Handle:
        """The root's `source` in every member's `target`."""
        check_channel(channel)
        count = _pair(source, target)
        op = self._start(
            "broadcast",
            lambda: self.engine.broadcast(
                channel,
                source.data_ptr(),
                target.data_ptr(),
                count,
                root,
                timeout_ns=self._op_timeout_ns,
            ),
            (source, target),
        )
        return self._handle(op, "broadcast", f"broadcast of {count} elements")

    def barrier(self, *, channel: int) -> Handle:
        """Over when every member has reached it."""
        check_channel(channel)
        op = self._start(
            "barrier",
            lambda: self.engine.barrier(channel, timeout_ns=self._op_timeout_ns),
            (),
        )
        return self._handle(op, "barrier", "barrier")

    def exchange(
        self,
        source: torch.Tensor,
        target: torch.Tensor,
        *,
        partner: bytes,
        tag: int,
        channel: int,
        timeout_s: float,
    ) -> Handle:
        """Swaps `source` with the partner's, best effort: PeerLost when it is gone or late."""
        check_channel(channel)
        count = _pair(source, target)
        op = self._start(
            "exchange",
            lambda: self.engine.exchange(
                channel,
                source.data_ptr(),
                target.data_ptr(),
                count,
                partner,
                tag,
                timeout_ns=int(timeout_s * 1e9),
            ),
            (source, target),
        )
        return self._handle(op, "exchange", f"exchange with {partner.hex()[:8]}")

    def fetch(
        self,
        donor: bytes,
        *,
        revision: int | None,
        buffer: int,
        offset: int,
        target: torch.Tensor,
        timeout_s: float,
    ) -> Handle:
        """Fills `target` (uint8) from a donor's published buffer."""
        op = self._start(
            "fetch",
            lambda: self.engine.fetch(
                donor,
                revision,
                buffer,
                offset,
                target.data_ptr(),
                target.numel(),
                int(timeout_s * 1e9),
            ),
            (target,),
        )
        return self._handle(op, "fetch", f"state from {donor.hex()[:8]}")

    def ended(self, op: int) -> None:
        """The engine has let go of the op's buffers (its OpEnded event)."""
        with self._lock:
            if op in self._finished:
                self._finished.discard(op)
            elif self._alive.pop(op, None) is None:
                self._ended_early.add(op)

    def finish(self, op: int) -> None:
        """The outcome was taken: the engine may forget the op."""
        self.engine.release(op)
        with self._lock:
            if self._alive.pop(op, None) is not None:
                self._finished.add(op)

    def _start(self, kind: str, submit: Callable[[], int], buffers: tuple[Any, ...]) -> int:
        from atoll import _core

        try:
            op = submit()
        except _core.CoreError as error:
            if error.code == "closed":
                raise self.explain(errors.SessionClosed(f"{kind}: the session is closed")) from None
            raise errors.MisuseError(f"{kind}: {error}") from None
        with self._lock:
            if op in self._ended_early:  # its event was faster than this line
                self._ended_early.discard(op)
            else:
                self._alive[op] = buffers
        return op

    def _handle(self, op: int, kind: str, what: str) -> Handle:
        observe = self._observe
        on_end = None if observe is None else lambda seconds: observe(kind, seconds)
        return Handle(self, op, what, on_end)


def check_channel(channel: int) -> None:
    """Raises MisuseError unless it is a channel's number."""
    if not isinstance(channel, int) or not 0 <= channel < MAX_CHANNELS:
        raise errors.MisuseError(f"channel {channel!r} is not in [0, {MAX_CHANNELS})")


def check_tensor(name: str, tensor: torch.Tensor) -> None:
    """Raises TensorError unless it is a tensor, fp32, dense, contiguous and on the CPU."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise errors.TensorError(f"{name} is a {type(tensor).__name__}, not a torch tensor")
    if tensor.dtype != torch.float32:
        raise errors.TensorError(
            f"{name} is {str(tensor.dtype).removeprefix('torch.')}; only float32 is supported, "
            "convert it with .float()"
        )
    if tensor.layout != torch.strided or not tensor.is_contiguous():
        raise errors.TensorError(f"{name} is not contiguous; pass {name}.contiguous()")
    if tensor.device.type != "cpu":
        raise errors.TensorError(f"{name} is on {tensor.device}; pass {name}.cpu()")


def _pair(source: torch.Tensor, target: torch.Tensor) -> int:
    check_tensor("source", source)
    check_tensor("target", target)
    if source.numel() != target.numel():
        raise errors.TensorError(
            f"source has {source.numel()} elements and target {target.numel()}; they must be equal"
        )
    return source.numel()
