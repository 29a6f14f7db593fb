"""Islands of an outer method that are all killed go on from their checkpoints, to the bit.

Real processes and SIGKILL, against two plain runs in one process with DiLoCo between them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from outer_worker import ISLANDS, STEPS, Where, run, task_of
from test_elastic_processes import full
from test_outer_processes import PATIENCE_S, Deaths, Right, check, coordinator
from test_outer_processes import context as context  # fixtures
from test_outer_processes import right as right
from test_saved import held, same
from worker_process import Death

import atoll

pytestmark = [pytest.mark.processes, pytest.mark.training]

Processes = dict[str, BaseProcess]


@contextmanager
def life(
    context: ForkServerContext,
    out: Path,
    checkpoints: Path,
    workers: Mapping[str, int],
    deaths: Deaths | None = None,
) -> Iterator[Processes]:
    """All workers of both islands, under way; gone afterwards."""
    out.mkdir()
    processes: Processes = {}
    east, west = (coordinator(workers[island]) for island in ISLANDS)
    with east as first, west as second, coordinator(1) as outer:
        try:
            for island, inner in zip(ISLANDS, (first, second), strict=True):
                where = Where(island=island, inner=inner, outer=outer)
                dies = (deaths or {}).get(island, ())
                for number in range(workers[island]):
                    name = f"{island}{number}"
                    arguments = (where, name, out, dies, STEPS, str(checkpoints))
                    processes[name] = context.Process(target=run, args=arguments)
                    processes[name].start()
            yield processes
        finally:
            for process in processes.values():
                process.kill()
                process.join()


def ended(processes: Processes, out: Path) -> dict[str, dict[str, Any]]:
    """What all have written, by name."""
    for process in processes.values():
        process.join(PATIENCE_S)
    codes = {name: process.exitcode for name, process in processes.items()}
    assert set(codes.values()) == {0}, codes
    return {name: json.loads((out / f"{name}.json").read_text()) for name in processes}


def check_all(found: dict[str, dict[str, Any]], right: Right) -> dict[str, set[int]]:
    """Everybody's bits; returns the steps that each island has made in this life."""
    steps: dict[str, set[int]] = {}
    for island in ISLANDS:
        own = {name: each for name, each in found.items() if name.startswith(island)}
        owned = [check(each, island, right) for each in own.values()]
        assert sum(map(len, owned)) == len(set().union(*owned)) == len(right.spine.shards())
        (steps[island],) = {frozenset(map(int, each["losses"])) for each in own.values()}
    return steps


def test_islands_that_are_all_killed_in_a_round_begin_at_one_round(
    context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    dies = {"east": (Death(what="sums agreed", nth=2),)}
    two = dict.fromkeys(ISLANDS, 2)
    with life(context, tmp_path / "1", tmp_path / "kept", two, dies) as processes:
        assert wait([process.sentinel for process in processes.values()], PATIENCE_S)
        for process in processes.values():
            process.kill()
            process.join()
    assert {process.exitcode for process in processes.values()} == {-9}
    # Other numbers of workers, and none was there: what they know is on disk.
    others = {"east": 3, "west": 2}
    with life(context, tmp_path / "2", tmp_path / "kept", others) as processes:
        steps = check_all(ended(processes, tmp_path / "2"), right)
    # The second round was not made yet; of the third step perhaps not all parts were written.
    for made in steps.values():
        assert made in ({3, 4, 5, 6}, {4, 5, 6})
    for island in ISLANDS:
        layers = task_of(island).layers
        assert atoll.load_layers(str(tmp_path / "kept" / island), layers) == STEPS
        assert same(held(layers), right.shared)


@full
def test_an_island_that_lacks_the_newest_round_takes_the_others_back(
    context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    two = dict.fromkeys(ISLANDS, 2)
    with life(context, tmp_path / "1", kept, two) as processes:
        check_all(ended(processes, tmp_path / "1"), right)
    for path in (kept / "west").glob("part-*/round-*"):
        if int(path.name.split("-")[1]) > 3:
            shutil.rmtree(path)
    with life(context, tmp_path / "2", kept, two) as processes:
        steps = check_all(ended(processes, tmp_path / "2"), right)
    # One is to be kept, and more were, for the other island has told of one of this round only.
    assert steps == {"east": {4, 5, 6}, "west": {4, 5, 6}}
