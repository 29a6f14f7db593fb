"""Two elastic islands are two members of DiLoCo: who dies inside an island changes no bit outside.

Real processes and SIGKILL, against a plain loop over two runs in one process without failures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from outer_worker import EVERY, ISLANDS, LR, MOMENTUM, STEPS, Where, run, task_of
from test_elastic_processes import full
from worker_process import Death

from atoll.elastic import flat
from atoll.elastic.oracle import Oracle
from atoll.methods.outer import nesterov_step, outer_gradient
from forked import forkserver

pytestmark = [pytest.mark.processes, pytest.mark.training]

PATIENCE_S = 50.0
"""Less than the time-out of an op: who waits for that has waited for nothing."""
WORKERS = 3

Slots = dict[str, str]


class Right:
    """Two runs and DiLoCo between them: no workers, no vshards, no failures."""

    def __init__(self) -> None:
        oracles = {island: Oracle(task_of(island)) for island in ISLANDS}
        shared = [layer.parameters.clone() for layer in oracles["east"].layers]
        momenta = [torch.zeros_like(each) for each in shared]
        self.losses: dict[str, list[float]] = {island: [] for island in ISLANDS}
        for step in range(1, STEPS + 1):
            for island, oracle in oracles.items():
                self.losses[island].append(oracle.train_step())
            if step % EVERY:
                continue
            for index, theta in enumerate(shared):
                east, west = (oracles[island].layers[index].parameters for island in ISLANDS)
                way = (outer_gradient(theta, east) + outer_gradient(theta, west)) / len(ISLANDS)
                shared[index], momenta[index] = nesterov_step(
                    theta, momenta[index], way, lr=LR, mu=MOMENTUM
                )
                for oracle in oracles.values():
                    oracle.layers[index].parameters.copy_(shared[index])
        self.spine = oracles["east"]._spine
        self._oracles, self.shared, self._momenta = oracles, shared, momenta

    def slots(self, island: str, layer: int, v: int) -> Slots:
        begin, end = self.spine.bounds((layer, v))
        moments = self._oracles[island].moments[layer]
        parameters = self._oracles[island].layers[layer].parameters
        every = {
            "p": parameters,
            "m": moments.m,
            "v": moments.v,
            "shared": self.shared[layer],
            "momentum": self._momenta[layer],
        }
        return {name: flat.digest(whole[begin:end]) for name, whole in every.items()}


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return forkserver()


@pytest.fixture(scope="module")
def right() -> Right:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Right()
    torch.set_num_threads(before)
    return found


def check(found: dict[str, Any], island: str, right: Right) -> set[str]:
    """All that a survivor has; returns the vshards that it owns."""
    assert found["rounds"] == STEPS // EVERY
    owned, shadows = found["owned"], found["shadows"]
    for step, loss in found["losses"].items():
        assert loss == right.losses[island][int(step) - 1]
    for name, (version, slots) in (*owned.items(), *shadows.items()):
        layer, v = map(int, name.split("."))
        assert version == STEPS
        assert slots == right.slots(island, layer, v), f"vshard {name} of island {island}"
    return set(owned)


@contextmanager
def coordinator(min_islands: int) -> Iterator[int]:
    """One in a process of its own; its port."""
    command = [sys.executable, "-m", "atoll.coordinator", "--listen", "127.0.0.1:0"]
    command += ["--job", "reef", "--min-islands", str(min_islands)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = next(line for line in process.stderr if "listening on port" in line)
            yield int(said.rsplit(" ", 1)[1])
        finally:
            process.kill()


Deaths = dict[str, tuple[Death, ...]]

STORIES: dict[str, Deaths] = {
    # In the first round of one island, while parameters are on their way; in a step of the other.
    "in a round and in a step": {
        "east": (Death(what="ways", nth=1, stage=0, position=0),),
        "west": (Death(what="nodes", nth=3, stage=0, position=1),),
    },
}
MORE: dict[str, Deaths] = {
    "nobody": {},
    "before the islands meet": {"east": (Death(what="round", nth=1, stage=0),)},
    "where they meet": {"west": (Death(what="meeting", nth=1, stage=0, position=1),)},
    "in both islands at once": {
        "east": (Death(what="ways", nth=1, stage=0),),
        "west": (Death(what="ways", nth=1, stage=0, position=1),),
    },
    "when sums are compared": {"east": (Death(what="sums agreed", nth=2, stage=0),)},
    "while the sums are sent to the backups": {"west": (Death(what="shadow sums", nth=1),)},
    "after the round, parameters half sent": {"east": (Death(what="parameters", nth=4),)},
}


@pytest.mark.parametrize(
    "deaths",
    [
        *(pytest.param(deaths, id=name) for name, deaths in STORIES.items()),
        *(pytest.param(deaths, id=name, marks=full) for name, deaths in MORE.items()),
    ],
)
def test_deaths_inside_islands_change_no_bit_outside(
    deaths: Deaths, context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    processes: dict[tuple[str, str], BaseProcess] = {}
    with coordinator(WORKERS) as east, coordinator(WORKERS) as west, coordinator(1) as outer:
        try:
            for island, inner in zip(ISLANDS, (east, west), strict=True):
                for number in range(WORKERS):
                    name = f"{island}{number}"
                    where = Where(island=island, inner=inner, outer=outer)
                    process = context.Process(
                        target=run, args=(where, name, tmp_path, deaths.get(island, ()))
                    )
                    processes[island, name] = process
                    process.start()
            for process in processes.values():
                process.join(PATIENCE_S)
            for island in ISLANDS:
                codes = {n: p.exitcode for (i, n), p in processes.items() if i == island}
                killed = [name for name, code in codes.items() if code == -9]
                assert len(killed) == len(deaths.get(island, ())), codes
                survivors = [name for name, code in codes.items() if code == 0]
                assert len(killed) + len(survivors) == WORKERS, codes
                owned = [
                    check(json.loads((tmp_path / f"{name}.json").read_text()), island, right)
                    for name in survivors
                ]
                assert sum(map(len, owned)) == len(set().union(*owned))
                assert len(set().union(*owned)) == len(list(right.spine.shards()))
        finally:
            for process in processes.values():
                process.kill()
                process.join()


@full
def test_an_island_that_is_drained_leaves_as_a_whole_after_a_round(
    context: ForkServerContext, tmp_path: Path
) -> None:
    processes: dict[str, BaseProcess] = {}
    with coordinator(2) as east, coordinator(2) as west, coordinator(1) as outer:
        try:
            for island, inner in zip(ISLANDS, (east, west), strict=True):
                for number in range(2):
                    where = Where(island=island, inner=inner, outer=outer)
                    name = f"{island}{number}"
                    leaves_at = 2 if island == "west" else STEPS
                    arguments = (where, name, tmp_path, (), leaves_at)
                    processes[name] = context.Process(target=run, args=arguments)
                    processes[name].start()
            for process in processes.values():
                process.join(PATIENCE_S)
            assert {process.exitcode for process in processes.values()} == {0}
            found = {
                name: json.loads((tmp_path / f"{name}.json").read_text()) for name in processes
            }
        finally:
            for process in processes.values():
                process.kill()
                process.join()
    ends = {name: (own["step"], own["rounds"]) for name, own in found.items()}
    # Told in the third step, they make the round that the fourth ends; the others go on alone.
    assert ends == {"west0": (4, 2), "west1": (4, 2), "east0": (6, 3), "east1": (6, 3)}
