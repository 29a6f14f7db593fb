"""All interleavings of a small job: every order in which things can happen, not one of a seed.

Depth first. A state that was met before is not searched again, but the paths through it count.
Where a case has a bound on detours, how many are left belongs to the state.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from atoll.sim.checks import Violation
from atoll.sim.small import SmallWorld
from atoll.sim.states import UNORDERED, Case, Move, State

UNBOUNDED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What a case holds. `paths`: orders of events from the beginning to an end, where nothing is
    under way. `chairs`, `nodes`: different states of the coordinator, and of processes."""

    case: Case
    states: int
    moves: int
    paths: int
    ends: int
    chairs: int
    nodes: int


@dataclass(slots=True)
class _Open:
    """A state on the path that is being searched, and what has not been tried in it."""

    state: State
    key: bytes
    rest: list[Move]
    detours: int  # that may still be made
    first: Move | None  # of what happens by itself: no detour
    paths: int = 0


class _Search:
    def __init__(self, case: Case) -> None:
        self.world = SmallWorld(case)
        self.ends = self.moves = 0
        self.paths: dict[bytes, int] = {}  # from a state to the ends; -1: it is being searched
        self.stack: list[_Open] = []
        self.taken: list[Move] = []

    def enter(self, state: State, key: bytes, detours: int) -> None:
        world = self.world
        self.paths[key] = -1
        world.check(state)
        found = world.moves(state)
        first = found[0] if found and found[0].what not in UNORDERED else None
        if not detours:
            found = [move for move in found if move == first or move.what in UNORDERED]
        now = _Open(state, key, found, detours, first)
        if found and found[-1].what == "wait" and world.after(state, found[-1]) == state:
            found.pop()
            now.paths = 1
            self.ends += 1
            world.check_end(state)
        self.stack.append(now)

    def run(self) -> int:
        """Returns the number of paths."""
        first = self.world.begin()
        bound = self.world.case.detours
        detours = UNBOUNDED if bound is None else bound
        pack = struct.Struct(f"{len(first) + 1}I").pack
        self.enter(first, pack(*first, detours), detours)
        while True:
            now = self.stack[-1]
            if not now.rest:
                self.paths[now.key] = now.paths
                self.stack.pop()
                if not self.stack:
                    return now.paths
                self.taken.pop()
                self.stack[-1].paths += now.paths
                continue
            move = now.rest.pop()
            self.taken.append(move)
            state = self.world.after(now.state, move)
            self.moves += 1
            detours = now.detours
            if bound is not None and move != now.first and move.what not in UNORDERED:
                detours -= 1
            key = pack(*state, detours)
            known = self.paths.get(key)
            if known is None:
                self.enter(state, key, detours)
            else:
                if known < 0:
                    raise Violation("progress: what happens leads back to where it began")
                now.paths += known
                self.taken.pop()


def explore(case: Case) -> Explored:
    """Searches a case through and through. Raises Violation, with the path that leads there, when
    an invariant does not hold, or when somebody waits for ever."""
    search = _Search(case)
    try:
        paths = search.run()
    except Violation as violation:
        path = zip(search.stack, search.taken, strict=False)
        lines = [search.world.describe(at.state, move) for at, move in path]
        raise Violation("\n  ".join([str(violation), *lines])) from None
    return Explored(
        case=case,
        states=len(search.paths),
        moves=search.moves,
        paths=paths,
        ends=search.ends,
        chairs=len(search.world.chairs),
        nodes=len(search.world.nodes),
    )
