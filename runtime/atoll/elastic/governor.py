"""Frequencies: the slowest stage as fast as allowed, the others no faster than it needs them.

A pipeline goes at the pace of its slowest stage; what others do in less time is spent waiting. The
arithmetic is pure; who can change a processor's or an accelerator's clock implements
`SpeedGovernor`. Clocks change when something is computed, and no bit of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atoll.elastic.identity import Worker
from atoll.elastic.layout import Layout
from atoll.errors import MisuseError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Speeds that a worker may be set to; 1 is the one that costs are measured at."""

    slowest: float = 1.0
    fastest: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.slowest <= self.fastest:
            raise MisuseError(f"speeds from {self.slowest} to {self.fastest} are no range")


class SpeedGovernor(Protocol):
    """Sets the speed of workers. Thread: whichever changes the layout."""

    def limits(self, worker: Worker) -> Limits: ...
    def set_speed(self, worker: Worker, speed: float) -> None: ...


def slack(stage_seconds: Sequence[float]) -> tuple[float, ...]:
    """The slowest stage's time over each stage's own: 1 for the slowest, inf for an idle one."""
    slowest = max(stage_seconds)
    return tuple(slowest / own if own > 0.0 else float("inf") for own in stage_seconds)


def stage_speeds(work_s: Sequence[float], limits: Sequence[Limits]) -> tuple[float, ...]:
    """The slowest speeds at which a step takes as little time as it can.

    work_s: what each stage needs at speed 1. The stage that is slowest at its fastest speed sets
    the pace.
    """
    pace_s = max(work / limit.fastest for work, limit in zip(work_s, limits, strict=True))
    return tuple(
        min(limit.fastest, max(limit.slowest, work / pace_s if pace_s > 0.0 else 0.0))
        for work, limit in zip(work_s, limits, strict=True)
    )


def govern(governor: SpeedGovernor, layout: Layout, work_s: Sequence[float]) -> tuple[float, ...]:
    """Sets all workers of a layout; returns the groups' speeds, for the planner.

    work_s: of each group, in all its stages. A group's workers share its work, so it is as fast as
    its slowest worker can be.
    """
    allowed = []
    for group in layout.groups:
        own = [governor.limits(worker) for worker in group]
        fastest = min(limit.fastest for limit in own)
        slowest = min(fastest, max(limit.slowest for limit in own))
        allowed.append(Limits(slowest=slowest, fastest=fastest))
    speeds = stage_speeds(work_s, allowed)
    for group, speed in zip(layout.groups, speeds, strict=True):
        for worker in group:
            governor.set_speed(worker, speed)
    return speeds


@dataclass(slots=True, kw_only=True)
class SimulatedGovernor:
    """Workers whose compute is simulated: their speed is a number."""

    allowed: Mapping[Worker, Limits] = field(default_factory=dict)
    speeds: dict[Worker, float] = field(default_factory=dict)

    def limits(self, worker: Worker) -> Limits:
        return self.allowed.get(worker, Limits())

    def set_speed(self, worker: Worker, speed: float) -> None:
        limit = self.limits(worker)
        if not limit.slowest <= speed <= limit.fastest:
            raise MisuseError(f"{worker} cannot run at {speed}")
        self.speeds[worker] = speed
