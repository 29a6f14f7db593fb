"""Micro-batches dealt out to workers."""

from __future__ import annotations

import random


def drawn(rng: random.Random, total: int, workers: int) -> list[list[int]]:
    """Micro-batches dealt out in any order to any number of workers."""
    assignment: list[list[int]] = [[] for _ in range(workers)]
    for micro_batch in rng.sample(range(total), total):
        rng.choice(assignment).append(micro_batch)
    rng.shuffle(assignment)
    return assignment
