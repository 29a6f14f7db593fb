"""What chaos does, and when: a pure function of a seed.

Faults come at random with `mtbf_s` seconds between two in the mean (a Poisson process), and each
strikes somebody at random. The same seed gives the same faults at the same times; whom they strike
is the same as long as the same islands are there.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

SHORTEST_S, LONGEST_S = 1.0, 20.0
"""Of a freeze or a cut: from what nobody notices to what costs membership (silence_s is 5)."""

T = TypeVar("T")


class Fault(enum.StrEnum):
    """What happens to an island."""

    KILL = "kill"  # SIGKILL
    FREEZE = "freeze"  # SIGSTOP, and SIGCONT later
    CUT = "cut"  # nothing from the network reaches it for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A fault. `pick`: whom, as a part of all, in [0, 1); `hold_s`: for how long; 0: for good."""

    number: int
    at_s: float
    fault: Fault
    pick: float
    hold_s: float


def steps(seed: int, mtbf_s: float, faults: Sequence[Fault]) -> Iterator[Step]:
    """Faults without an end. Every step takes as many random numbers, whatever it is."""
    source = random.Random(seed)
    at_s = 0.0
    number = 0
    while True:
        number += 1
        at_s += source.expovariate(1 / mtbf_s)
        fault = faults[int(source.random() * len(faults))]
        pick = source.random()
        spread = math.log(LONGEST_S / SHORTEST_S)
        hold_s = SHORTEST_S * math.exp(source.random() * spread)
        yield Step(
            number=number,
            at_s=at_s,
            fault=fault,
            pick=pick,
            hold_s=0.0 if fault is Fault.KILL else round(hold_s, 1),
        )


def victim(step: Step, candidates: Sequence[T]) -> T | None:
    """Whom it strikes of these, which the caller has put into an order that can be had again."""
    return candidates[int(step.pick * len(candidates))] if candidates else None
