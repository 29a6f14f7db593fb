"""Times the all-reduce of a running job. `atoll bench allreduce` shows what this finds out.

    what = AllReduce(nbytes=16 << 20)
    measurement = measure_all_reduce(session, what)  # all members, with equal arguments

Thread: the user's. Nothing else may use channel 0 meanwhile. Members exchange what each of them
measured through the session itself, so this works wherever the job does.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from atoll import errors

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle
    from atoll.session import Session

# The torch names, and what else people call them.
DTYPES = {
    "float64": "float64",
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int64": "int64",
    "int32": "int32",
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
}
FEWEST_ITERATIONS = 7
_MOST_ITERATIONS = 100
_BYTES_WORTH_MEASURING = 256 << 20
# Sums of a few members' float32 numbers, in whatever order, are closer than this.
_FLOAT32_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class AllReduce:
    """What to measure. `nbytes`: of each member's vector; a name of DTYPES; None: no codec."""

    nbytes: int
    dtype: str = "float32"
    plan: str = "auto"
    codec: str | None = None
    iterations: int | None = None
    """None: as many as `iterations_for` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One process's side of a series. CPU seconds are those of all its threads, in all rounds."""

    times_s: tuple[float, ...]
    cpu_s: float
    sleeps: int
    """How often a thread of this process has waited (voluntary context switches)."""
    began_s: float
    """When the first counted run began, by this machine's monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What all members measured. Per op and, unless said otherwise, summed over the members."""

    what: AllReduce
    members: int
    plan: str
    """As used, where the engine says so; otherwise as asked for."""
    iterations: int
    times_s: tuple[tuple[float, ...], ...]
    """Wall seconds from submit to commit, by rank and iteration."""
    cpu_s: float
    sleeps: float
    sent_bytes: tuple[float, ...]
    """At the socket, by rank, with headers and notices."""
    began_s: tuple[float, ...]
    """When the first of the times began, by rank, by each machine's monotonic clock."""
    error: float
    """Largest difference from the exact sum, as a part of the largest sum."""

    @property
    def median_s(self) -> float:
        """Of all members' times together, as are `min_s` and `max_s`."""
        return median(self._all())

    @property
    def min_s(self) -> float:
        return min(self._all())

    @property
    def max_s(self) -> float:
        return max(self._all())

    @property
    def bandwidth(self) -> float:
        """Bytes of the vector a second."""
        return self.what.nbytes / self.median_s

    @property
    def moved_bytes(self) -> int:
        """What all members must send together without a codec: 2 (N-1) vectors."""
        return 2 * (self.members - 1) * self.what.nbytes

    @property
    def cpu_s_per_byte(self) -> float:
        """CPU seconds per moved byte; 0 for a job of one, which moves none."""
        return self.cpu_s / self.moved_bytes if self.moved_bytes else 0.0

    def _all(self) -> list[float]:
        return [time_s for times in self.times_s for time_s in times]


def iterations_for(nbytes: int) -> int:
    """Returns how often an op of that size is worth timing: 7 for large ones, up to 100."""
    return max(FEWEST_ITERATIONS, min(_MOST_ITERATIONS, _BYTES_WORTH_MEASURING // max(1, nbytes)))


def warm_up_for(iterations: int) -> int:
    """Returns how many ops go before those that count."""
    return max(2, min(10, iterations // 5))


def timed(operation: Callable[[], object], iterations: int, warm_up: int) -> Samples:
    """Runs `operation` again and again; one time for each run after the first `warm_up`."""
    for _ in range(warm_up):
        operation()
    times = []
    before, cpu, began_s = _waits(), time.process_time(), time.monotonic()
    for _ in range(iterations):
        start = time.perf_counter()
        operation()
        times.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    sleeps = _waits() - before
    return Samples(times_s=tuple(times), cpu_s=cpu, sleeps=sleeps, began_s=began_s)


def measure_all_reduce(session: Session, what: AllReduce) -> Measurement:
    """Measures; every member gets all members' numbers. All members call it with equal arguments.

    Raises MisuseError for what the session cannot do, and RuntimeFault when the result is wrong or
    the members changed meanwhile.
    """
    dtype = _dtype_of(what)
    session.barrier()
    group = _Group(session)
    base = _numbers(what.nbytes // ITEM_BYTES[DTYPES[what.dtype]], dtype)
    source = base * (group.rank + 1)
    target = base.new_empty(base.shape)
    del base  # for the largest vectors; it can be made again
    handles: list[Handle[torch.Tensor]] = []

    def operation() -> None:
        handle = session.all_reduce(source, target, plan=what.plan, codec=what.codec)
        group.check(handle)
        handles[:] = [handle]

    iterations = what.iterations or iterations_for(what.nbytes)
    # The bytes of the warm-up and of the barrier would count as those of the rounds.
    for _ in range(warm_up_for(iterations)):
        operation()
    sent = _sent_bytes(session)
    samples = timed(operation, iterations, 0)
    sent = _sent_bytes(session) - sent
    error = _error_of(target, group.size, dtype)
    mine = {**dataclasses.asdict(samples), "sent_bytes": sent / iterations, "error": error}
    every = group.gather(mine)
    measurement = Measurement(
        what=what,
        members=group.size,
        plan=handles[0].wait().plan or what.plan,
        iterations=iterations,
        times_s=tuple(tuple(one["times_s"]) for one in every),
        cpu_s=sum(one["cpu_s"] for one in every) / iterations,
        sleeps=sum(one["sleeps"] for one in every) / iterations,
        sent_bytes=tuple(one["sent_bytes"] for one in every),
        began_s=tuple(one["began_s"] for one in every),
        error=max(one["error"] for one in every),
    )
    is_exact = what.codec is None and DTYPES[what.dtype] == "float32"
    if not measurement.error <= (_FLOAT32_TOLERANCE if is_exact else 1.0):
        raise errors.RuntimeFault(
            f"the all-reduce of {what.nbytes} bytes gave a wrong sum, "
            f"off by {measurement.error:.3g} of the largest value"
        )
    return measurement


class _Group:
    """The members at the beginning. Who comes or goes later makes the measurement void."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._epoch = session.view.epoch
        rank = session.rank
        self.size = session.size
        if rank is None:
            raise errors.RuntimeFault("this island is no member of the job any more")
        self.rank = rank

    def check(self, handle: Handle[torch.Tensor]) -> None:
        """Waits for the op; it must be one of the same members."""
        if handle.wait().epoch != self._epoch:
            raise errors.RuntimeFault(
                "islands came or went while this was measured; measure again when they are stable"
            )

    def gather(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns all members' values by rank. A byte travels as a float32, which is exact."""
        import torch

        text = json.dumps(value).encode()
        lengths = torch.zeros(self.size)
        lengths[self.rank] = len(text)
        lengths = self._sum(lengths)
        slots = torch.zeros(self.size, int(lengths.max()))
        slots[self.rank, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        rows = self._sum(slots).to(torch.uint8)
        sizes = [int(length) for length in lengths]
        return [
            json.loads(bytes(row[:size].tolist())) for row, size in zip(rows, sizes, strict=True)
        ]

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        handle = self._session.all_reduce(tensor)
        self.check(handle)
        return handle.target


def _dtype_of(what: AllReduce) -> torch.dtype:
    import torch

    name = DTYPES.get(what.dtype)
    if name is None:
        raise errors.MisuseError(f"dtype '{what.dtype}' is not one of {', '.join(DTYPES)}")
    if what.nbytes < 1 or what.nbytes % ITEM_BYTES[name] != 0:
        raise errors.MisuseError(
            f"{what.nbytes} bytes are no whole number of {name} values of {ITEM_BYTES[name]} bytes"
        )
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _numbers(count: int, dtype: torch.dtype) -> torch.Tensor:
    """The same numbers on all members, made anew when they are needed again."""
    import torch

    if not dtype.is_floating_point:
        return torch.arange(count, dtype=dtype).remainder_(15).sub_(7)
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, generator=generator).sub_(0.5).to(dtype)


def _error_of(result: torch.Tensor, members: int, dtype: torch.dtype) -> float:
    # Member r gave (r + 1) times the numbers.
    exact = _numbers(result.numel(), dtype) * (members * (members + 1) // 2)
    largest = float(exact.abs().max())
    difference = float(exact.sub_(result).abs_().max())
    return difference / largest if largest else difference


def _sent_bytes(session: Session) -> int:
    return sum(link.sent_bytes for link in session.engine.stats().links)


def _waits() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
