"""A learning-rate scheduler's state as JSON that gives the same state back. Pure, but for torch's
schedulers themselves.

JSON knows neither integers as keys (MultiStepLR's milestones), tuples nor infinities: such values
are written as an object with one key, their kind.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from atoll.errors import MisuseError

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler


def check(scheduler: object, inner: object) -> None:
    """Raises MisuseError for one that replicas cannot step alike, or another optimizer's."""
    from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

    if isinstance(scheduler, ReduceLROnPlateau):
        raise MisuseError(
            "ReduceLROnPlateau follows a loss, and every replica has its own; use a schedule that "
            "counts steps"
        )
    if not isinstance(scheduler, LRScheduler):
        raise MisuseError(f"scheduler must be one of torch.optim.lr_scheduler, not {scheduler!r}")
    if getattr(scheduler, "optimizer", inner) is not inner:
        raise MisuseError("the scheduler must be that of the wrapped optimizer")
    state_of(scheduler)


def state_of(scheduler: LRScheduler | None) -> Any:
    """JSON; None for no scheduler. Raises MisuseError for a state with something else in it."""
    if scheduler is None:
        return None
    try:
        return to_json(scheduler.state_dict())
    except TypeError as error:
        raise MisuseError(f"{type(scheduler).__name__} cannot be shared: {error}") from None


def load(scheduler: LRScheduler | None, state: Any) -> None:
    """The scheduler stands where the state says. Raises TypeError or ValueError."""
    if (scheduler is None) != (state is None):
        mine, theirs = ("none", "one") if scheduler is None else ("one", "none")
        raise ValueError(f"this replica has {mine} for a scheduler, the job {theirs}")
    if scheduler is not None:
        found = from_json(state)
        if not isinstance(found, dict) or found.keys() != scheduler.state_dict().keys():
            raise ValueError(f"the job's scheduler is not a {type(scheduler).__name__}")
        scheduler.load_state_dict(found)


def to_json(value: object) -> Any:
    """Raises TypeError for what is neither a number, text, list, tuple nor dict."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case list():
            return [to_json(each) for each in value]
        case tuple():
            return {"tuple": [to_json(each) for each in value]}
        case dict():
            kind = "counter" if isinstance(value, Counter) else "dict"
            return {kind: [[to_json(key), to_json(each)] for key, each in value.items()]}
        case _:
            raise TypeError(f"its state has a {type(value).__name__}")


def from_json(value: Any) -> Any:
    """The value that `to_json` was given. Raises TypeError or ValueError for anything else."""
    if isinstance(value, list):
        return [from_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    match kind:
        case "float":
            return float(inside)
        case "tuple":
            return tuple(from_json(each) for each in inside)
        case "dict" | "counter":
            found = {from_json(key): from_json(each) for key, each in inside}
            return Counter(found) if kind == "counter" else found
        case _:
            raise ValueError(f"no kind {kind!r}")
