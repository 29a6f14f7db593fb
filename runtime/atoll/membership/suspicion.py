"""Who goes on when some members cannot reach each other: a pure function on a graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable

EXACT_LIMIT = 16
"""With more members in dispute than this, the search for the largest set is a heuristic. Searching
16 takes at most a few milliseconds, and so many at odds at once is a network in ruins anyway."""


def largest_clique(count: int, severed: Collection[tuple[int, int]]) -> tuple[int, ...]:
    """Return the largest set of members that all reach each other, by rank.

    `severed` holds the pairs of ranks in 0 .. count-1 that do not. Of several largest sets, the one
    that holds the oldest member (the lowest rank) in which they differ. Exact while at most
    `EXACT_LIMIT` members are in dispute; beyond that a set that cannot be extended, found greedily.
    """
    enemies: dict[int, set[int]] = {}
    for one, other in severed:
        if one != other:
            enemies.setdefault(one, set()).add(other)
            enemies.setdefault(other, set()).add(one)
    disputed = sorted(enemies)
    search = _exact if len(disputed) <= EXACT_LIMIT else _greedy
    kept = set(search(disputed, enemies))
    return tuple(rank for rank in range(count) if rank not in enemies or rank in kept)


def _exact(disputed: list[int], enemies: dict[int, set[int]]) -> Iterable[int]:
    best: tuple[int, ...] = ()

    def extend(chosen: tuple[int, ...], rest: list[int]) -> None:
        # Sets with an older member are tried first, so only a larger one replaces the best.
        nonlocal best
        if len(chosen) > len(best):
            best = chosen
        for position, rank in enumerate(rest):
            if len(chosen) + len(rest) - position <= len(best):
                return
            later = [other for other in rest[position + 1 :] if other not in enemies[rank]]
            extend((*chosen, rank), later)

    extend((), disputed)
    return best


def _greedy(disputed: list[int], enemies: dict[int, set[int]]) -> Iterable[int]:
    left = set(disputed)
    while True:
        # The one with most enemies goes, the youngest of several.
        worst = max(left, key=lambda rank: (len(enemies[rank] & left), rank))
        if not enemies[worst] & left:
            break
        left.discard(worst)
    for rank in disputed:
        if not enemies[rank] & left:
            left.add(rank)
    return left
