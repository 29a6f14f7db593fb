"""Where a job of replicas stands: the step, whose work it is, and which exchanges are left. Pure.

A step exchanges its gradient in buckets, one op each, in order. All ops of a channel commit or fail
on all members alike, so all members make the same position of them. A step is complete when every
bucket's result is of one view; while it is not, the buckets of earlier views (or, after an op that
failed, all of them) are exchanged once more: a pass. So a gradient never mixes the contributions of
two views, and who joins in the middle of a step receives all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Equal on all members at the same revision, `done` apart."""

    buckets: int
    step: int = 0
    """Steps that are complete."""
    assigned: tuple[bytes, ...] = ()
    """Whose work the running step is: the members in whose view the last one was completed."""
    todo: tuple[int, ...] = ()
    """Buckets of the running pass whose ops are not absorbed yet, in their order."""
    failed: bool = False
    """An op of the running pass has failed."""
    done: tuple[tuple[int, int], ...] = ()
    """(bucket, epoch) of the results that this member holds."""


def begun(buckets: int, members: Iterable[bytes], *, step: int = 0) -> Position:
    """A step that begins, the work of these members."""
    return Position(buckets=buckets, step=step, assigned=tuple(members), todo=tuple(range(buckets)))


def absorbed(position: Position, *, epoch: int, ok: bool) -> Position:
    """The next op of the pass is over. epoch: of the view in which it committed."""
    bucket, *left = position.todo
    done = dict(position.done)
    if ok:
        done[bucket] = epoch
    return replace(
        position,
        todo=tuple(left),
        failed=position.failed or not ok,
        done=tuple(sorted(done.items())),
    )


def next_pass(position: Position, epoch: int) -> Position:
    """After a pass, whose last op was of view `epoch`: `todo` is empty when the step is complete,
    else what must be exchanged again."""
    if position.failed:
        return replace(position, todo=tuple(range(position.buckets)), failed=False, done=())
    done = dict(position.done)
    old = tuple(bucket for bucket in range(position.buckets) if done.get(bucket) != epoch)
    return replace(position, todo=old) if old != position.todo else position


def to_json(position: Position) -> dict[str, Any]:
    """What a joiner is told: JSON."""
    return {
        "buckets": position.buckets,
        "step": position.step,
        "assigned": [peer.hex() for peer in position.assigned],
        "todo": list(position.todo),
        "failed": position.failed,
    }


def from_json(value: Mapping[str, Any]) -> Position:
    """A joiner's position, which holds no results. Raises KeyError, TypeError or ValueError."""
    buckets = int(value["buckets"])
    todo = tuple(int(bucket) for bucket in value["todo"])
    if not all(0 <= bucket < buckets for bucket in todo):
        raise ValueError(f"buckets {todo} of {buckets}")
    return Position(
        buckets=buckets,
        step=int(value["step"]),
        assigned=tuple(bytes.fromhex(peer) for peer in value["assigned"]),
        todo=todo,
        failed=bool(value["failed"]),
    )
