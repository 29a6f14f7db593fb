"""Which members of a view may have a place in the layout. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.elastic.identity import Worker
from atoll.elastic.layout import Layout
from atoll.errors import MismatchError

FACTS = {
    "spine": "trains another task (seed, layers, micro-batches or vshards)",
    "arithmetic": "computes other numbers (processor, torch, or number of threads)",
    "pipeline": "asks for another number of stages, or of chunks",
    "outer": "has another outer method",
}
"""What all must have in common, and what it means where they have not."""


def compatible(
    own: Worker, said: Mapping[Worker, Mapping[str, Any]], layout: Layout | None
) -> tuple[Worker, ...]:
    """Members that run the same task with the same arithmetic as those who were there before.

    said: FACTS by member, the oldest first. Raises MismatchError where `own` is not one of them;
    the others go on without it.
    """
    models = list(said) if layout is None else [w for w in layout.workers if w in said]
    model = {fact: said[models[0]][fact] for fact in FACTS}
    for fact, meaning in FACTS.items():
        if said[own][fact] != model[fact]:
            raise MismatchError(f"this worker {meaning} than {models[0]}, who was there before")
    return tuple(w for w, told in said.items() if all(told[f] == model[f] for f in FACTS))
