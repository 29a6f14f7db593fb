"""The collectives of a session: what people call. docs/collectives.md, "Operations", compares them.

Thread: any. All members call the same ops of one channel in the same order. A call checks what it
was given, submits, and returns a handle; only `barrier` and `all_gather_list` wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.collectives import options
from atoll.collectives.moves import MoveCalls, target_of
from atoll.collectives.tensors import as_moved, check_numbers

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle


class CollectiveCalls(MoveCalls):
    """The ops of all members, on tensors on the CPU, contiguous.

    Options that all of them share:

    - channel: ops of one channel run one after the other, those of different channels at once.
      0 is yours; methods have their own (DiLoCo: 1).
    - priority: of ops that send to the same member, the largest goes first. Need not agree.
    - timeout_s: not committed by then, the op fails with DeadlineExceeded on all members. None: the
      setting op_timeout_s.

    Errors of the call itself, one line each, before anything is sent: TensorError and MisuseError
    for what cannot be done, SessionClosed. What `Handle.wait` raises comes later.
    """

    def all_reduce(
        self,
        source: torch.Tensor,
        target: torch.Tensor | None = None,
        *,
        op: str = "sum",
        plan: str = "auto",
        codec: str | None = None,
        rounding: str = "nearest",
        seed: int = 0,
        weight: float = 1.0,
        note: int = 0,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Handle[torch.Tensor]:
        """Reduces all members' `source`; every member's target gets the same bits.

        source: any shape, the same number of elements on all; float32, float64, float16, bfloat16,
            int8, uint8, int32 or int64. Sums of 16-bit floats are rounded at every addition;
            integers wrap around, and their averages are cut towards zero.
        target: receives the result; None: a new tensor. `target=source` reduces in place, and puts
            the input back should the op fail.
        op: sum, avg, min, max or product.
        plan: how the bytes go: auto, ring, direct, doubling, mesh or grouped.
        codec: how float32 numbers travel (sum and avg alone): bf16, fp16, fp8, int8, int8_minmax,
            int4, int4_minmax, fp4 or two_bit; None: as they are. Results are rounded, and still
            bit-identical on all members. NaNs and infinities are counted (`Handle.outcome`).
        rounding: of the codec, nearest or stochastic; the latter with `seed`.
        weight: an average is sum(weight * source) / sum(weight) over the members. 0: this member
            contributes nothing, whatever is in its buffer, and receives the result; this goes with
            every op. If all bring 0, the result is that of no numbers: 0, or 1 for a product.
        note: 64 bits that this member wants to tell the others; everybody finds them by rank in
            `Handle.outcome.notes`, as the weights in `Handle.outcome.weights`.

        op, plan, codec and rounding must be equal on all members. An op that meets a change of the
        view runs again among those who are left.
        """
        check_numbers("source", source)
        out = target_of(source, target, source.numel(), f"source has {source.numel()} elements")
        options.one_of("plan", plan, options.PLANS)
        reduction = options.reduction(
            op=op, codec=codec, rounding=rounding, seed=seed, weight=weight
        )
        common = {**self._common(channel, priority), "note": options.check_note(note)}
        ops = self._ops()
        timeout_ns = ops.timeout_ns(timeout_s)
        return ops.start(
            "all_reduce",
            f"all-reduce of {source.numel()} elements",
            lambda: ops.engine.all_reduce(
                channel,
                source.data_ptr(),
                out.data_ptr(),
                source.numel(),
                dtype=as_moved(source)[0],
                plan=plan,
                timeout_ns=timeout_ns,
                **reduction,
                **common,
            ),
            target=out,
            buffers=(source, out),
        )

    def part_of(self, count: int, *, codec: str | None = None, epoch: int | None = None) -> slice:
        """Which of `count` elements are this member's in a `reduce_scatter`, in view `epoch`.

        Rank r of N has elements count*r//N to count*(r+1)//N; with a codec the bounds are rounded
        down to multiples of 256.
        """
        from atoll import _core

        name = options.codec_name(codec)
        count = options.whole("count", count, 0, 1 << 40)
        self._ops()
        _, ids, rank = self._bound(epoch)
        bounds = _core.part_bounds(count, len(ids), name)
        return slice(bounds[rank], bounds[rank + 1])

    def reduce_scatter(
        self,
        source: torch.Tensor,
        target: torch.Tensor | None = None,
        *,
        op: str = "sum",
        codec: str | None = None,
        rounding: str = "nearest",
        seed: int = 0,
        weight: float = 1.0,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float | None = None,
        epoch: int | None = None,
    ) -> Handle[torch.Tensor]:
        """Reduces like `all_reduce`; each member gets its part of the result (`part_of`).

        source: any shape. target: as many elements as the part has; None: a new one, [part].
        epoch: see `all_gather`.
        """
        check_numbers("source", source)
        reduction = options.reduction(
            op=op, codec=codec, rounding=rounding, seed=seed, weight=weight
        )
        common = self._common(channel, priority)
        ops = self._ops()
        timeout_ns = ops.timeout_ns(timeout_s)
        bound, _, _ = self._bound(epoch)
        part = self.part_of(source.numel(), codec=codec, epoch=bound)
        size = part.stop - part.start
        why = f"this member's part has {size} elements"
        out = source.new_empty(size) if target is None else target_of(source, target, size, why)
        return ops.start(
            "reduce_scatter",
            f"reduce-scatter of {source.numel()} elements",
            lambda: ops.engine.reduce_scatter(
                channel,
                source.data_ptr(),
                out.data_ptr(),
                source.numel(),
                size,
                dtype=as_moved(source)[0],
                epoch=bound,
                timeout_ns=timeout_ns,
                **reduction,
                **common,
            ),
            target=out,
            buffers=(source, out),
            bound_to=bound,
        )

    def start_barrier(self, *, channel: int = 0, timeout_s: float | None = None) -> Handle[None]:
        """The handle's op is over when every member has called this (or `barrier`)."""
        options.check_channel(channel)
        ops = self._ops()
        timeout_ns = ops.timeout_ns(timeout_s)
        return ops.start(
            "barrier",
            "barrier",
            lambda: ops.engine.barrier(channel, timeout_ns=timeout_ns, quiet=True),
            target=None,
            buffers=(),
        )

    def barrier(self, *, channel: int = 0, timeout_s: float | None = None) -> None:
        """Returns when every member has called it. Raises what `Handle.wait` does."""
        self.start_barrier(channel=channel, timeout_s=timeout_s).wait()
