"""Real workers, real links, real SIGKILL: the oracle's bits."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from models import task

from atoll.elastic import flat
from atoll.elastic.identity import Spine
from atoll.elastic.layout import decode
from atoll.elastic.oracle import Oracle
from forked import forkserver

sys.path.insert(0, str(Path(__file__).parents[1] / "control"))
from harness import Coordinator
from worker_process import Death, Story, run

pytestmark = [pytest.mark.processes, pytest.mark.training]

STEPS = 6
PATIENCE_S = 90.0

Right = tuple[Oracle, list[float]]
"""And its losses."""


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return forkserver()


@pytest.fixture(scope="module")
def right() -> Right:
    return trained(tied=False)


def trained(*, tied: bool) -> Right:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    oracle = Oracle(task(blocks=2, micro_batches=4, vshards=6, tied=tied))
    losses = [oracle.train_step() for _ in range(STEPS)]
    torch.set_num_threads(before)
    return oracle, losses


def check(found: dict[str, Any], right: Right) -> None:
    oracle, losses = right
    spine = oracle._spine
    assert found["losses"]
    for step, loss in found["losses"].items():
        assert loss == losses[int(step) - 1]
    for table in (found["owned"], found["shadows"]):
        for name, (version, slots) in table.items():
            layer, v = map(int, name.split("."))
            begin, end = spine.bounds((layer, v))
            moments = oracle.moments[layer]
            assert version == STEPS
            assert slots == {
                "p": flat.digest(oracle.layers[layer].parameters[begin:end]),
                "m": flat.digest(moments.m[begin:end]),
                "v": flat.digest(moments.v[begin:end]),
            }


class Job:
    """A coordinator here, and workers of one story."""

    def __init__(self, context: ForkServerContext, out: Path, story: Story, workers: str) -> None:
        self._context, self._out, self._story = context, out, story
        self._names = workers
        self.workers: dict[str, BaseProcess] = {}

    def __enter__(self) -> Job:
        self.coordinator = Coordinator(min_islands=len(self._names)).__enter__()
        for name in self._names:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.workers.values():
            process.kill()
            process.join()
        self.coordinator.__exit__()

    def start(self, name: str) -> None:
        arguments = (self.coordinator.port, name, self._out, self._story)
        self.workers[name] = self._context.Process(target=run, args=arguments, name=name)
        self.workers[name].start()

    def wait_for_a_death(self) -> None:
        """Returns when the first worker has ended."""
        sentinels = [process.sentinel for process in self.workers.values()]
        assert wait(sentinels, PATIENCE_S), "nobody has died"

    def wait_for_all_to_wait(self) -> None:
        """Returns when all stand before the step of the story's `size_at`."""
        end_s = time.monotonic() + PATIENCE_S
        while len(list(self._out.glob("*.waits"))) < len(self._names):
            assert time.monotonic() < end_s, "somebody does not get there"
            assert not wait([process.sentinel for process in self.workers.values()], 0.05)

    def found(self, right: Right, *, deaths: int) -> list[dict[str, Any]]:
        """What the survivors have written, compared with the run without failures."""
        found = self.written(deaths=deaths)
        for each in found:
            check(each, right)
        return found

    def written(self, *, deaths: int) -> list[dict[str, Any]]:
        """What the survivors have written."""
        for process in self.workers.values():
            process.join(PATIENCE_S)
        codes = [process.exitcode for process in self.workers.values()]
        assert sorted(map(str, codes)) == ["-9"] * deaths + ["0"] * (len(codes) - deaths)
        return [
            json.loads((self._out / f"{name}.json").read_text())
            for name, process in self.workers.items()
            if process.exitcode == 0
        ]


full = pytest.mark.skipif(
    os.environ.get("ELASTIC_TESTS") != "full", reason="part of the full matrix: make test-elastic"
)

DEATHS = [
    pytest.param(Death(what="input", nth=3), marks=full),  # mid-forward
    Death(what="gradient", nth=3, stage=1, position=1),  # mid-backward
    pytest.param(Death(what="nodes", nth=2, position=1), marks=full),  # REDUCE
    # PREPARE, or just before COMMIT
    pytest.param(Death(what="prepared", nth=3, stage=1), marks=full),
    Death(what="parameters", nth=3, stage=0, position=0),  # after COMMIT, parameters half sent
]


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.what)
def test_a_worker_that_is_killed_changes_no_bit(
    death: Death, context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    with Job(context, tmp_path, Story(steps=STEPS, deaths=(death,)), "abcd") as job:
        for found in job.found(right, deaths=1):
            assert found["recoveries"] >= 1
            assert found["critical"] == 0


@pytest.mark.parametrize(
    "death",
    [
        # It has passed some micro-batches through one of its two stages, and some through both.
        Death(what="gradient", nth=3, stage=1, position=1),
        pytest.param(Death(what="input", nth=4, stage=0), marks=full),
    ],
    ids=lambda death: death.what,
)
def test_a_kill_changes_no_bit_where_workers_have_stages_in_turns(
    death: Death, context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    with Job(context, tmp_path, Story(steps=STEPS, deaths=(death,), chunks=2), "abcd") as job:
        for found in job.found(right, deaths=1):
            assert found["recoveries"] >= 1
            assert found["critical"] == 0
            layouts = [decode(text.encode()) for text in found["layouts"].values()]
            assert {(len(each.stages), each.chunks) for each in layouts} == {(4, 2)}


@pytest.mark.parametrize(
    ("death", "chunks"),
    [
        # The head's worker, when it has sent a part of its sums to the embedding's owners.
        (Death(what="nodes", nth=3, stage=1), 1),
        pytest.param(Death(what="parameters", nth=3, stage=0), 1, marks=full),
        pytest.param(Death(what="gradient", nth=3, stage=1, position=1), 2, marks=full),
    ],
    ids=lambda each: getattr(each, "what", each),
)
def test_a_kill_changes_no_bit_where_the_head_is_tied_to_the_embedding(
    death: Death, chunks: int, context: ForkServerContext, tmp_path: Path
) -> None:
    right = trained(tied=True)
    story = Story(steps=STEPS, deaths=(death,), chunks=chunks, tied=True)
    with Job(context, tmp_path, story, "abcd") as job:
        for found in job.found(right, deaths=1):
            assert found["recoveries"] >= 1
            assert found["critical"] == 0
            layouts = [decode(text.encode()) for text in found["layouts"].values()]
            assert all(each.stage_of_layer(0) != each.stage_of_layer(3) for each in layouts)


FIRST = Death(what="nodes", nth=1, position=1)
"""Of five workers, three in the first stage, of which one has no micro-batch."""

SEVERAL = {
    # The second dies while the others tell each other what they hold, or stand before the gate.
    "reporting": (FIRST, Death(what="report", nth=1, stage=1)),
    "at the gate": (FIRST, Death(what="evidence", nth=1, stage=1)),
    # At once, or the second while the view without the first comes.
    "in two stages": (
        Death(what="nodes", nth=1, position=1, epochs=(1, 2)),
        Death(what="nodes", nth=1, stage=1, position=1, epochs=(1, 2)),
    ),
}


@full
@pytest.mark.parametrize("deaths", SEVERAL.values(), ids=SEVERAL.keys())
def test_several_deaths_change_no_bit(
    deaths: tuple[Death, ...], context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    with Job(context, tmp_path, Story(steps=STEPS, deaths=deaths), "abcde") as job:
        for found in job.found(right, deaths=2):
            assert found["workers"] == 3
            assert found["critical"] == 0


def test_a_worker_that_comes_takes_the_place_of_one_that_died(
    context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    story = Story(steps=STEPS, deaths=(Death(what="nodes", nth=2),), size_at=(4, 3))
    with Job(context, tmp_path, story, "abc") as job:
        job.wait_for_a_death()
        job.start("d")
        for found in job.found(right, deaths=1):
            assert found["workers"] == 3


def moved_bytes(layouts: dict[str, str], spine: Spine) -> tuple[int, int]:
    """The least that layouts after the first repair can send of states: (owners', backups')."""
    known = [decode(text.encode()) for _, text in sorted(layouts.items())]
    found = [0, 0]
    for before, after in itertools.pairwise(known):
        for shard in spine.shards():
            begin, end = spine.bounds(shard)
            there = {before.owner(shard), before.backup(shard)}
            for role, worker in enumerate((after.owner(shard), after.backup(shard))):
                found[role] += 12 * (end - begin) * (worker not in there)
    return found[0], found[1]


def test_what_is_sent_for_a_loss_is_the_least_possible(
    context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    death = Death(what="nodes", nth=3, stage=0, position=1)
    story = Story(steps=STEPS, deaths=(death,), leave_together=True)
    with Job(context, tmp_path, story, "abcd") as job:
        found = job.found(right, deaths=1)
    sent = {kind: sum(own["sent_bytes"].get(kind, 0) for own in found) for kind in KINDS}
    for own in found:
        assert len(own["sent_by_links"]) == own["workers"] - 1
        for by_link, tensors, texts in own["sent_by_links"].values():
            # Frames have headers, and links say that they live.
            assert tensors <= by_link <= 1.1 * (tensors + texts) + 100_000
    layouts = found[0]["layouts"]
    epochs = sorted(map(int, layouts))
    assert len(epochs) >= 3, "before, repaired, and improved"
    whole = {epoch: layouts[str(epoch)] for epoch in epochs[1:]}
    owners, backups = moved_bytes({str(e): text for e, text in whole.items()}, right[0]._spine)
    assert sent["critical"] == 0
    assert owners > 0, "layers have moved to the stage with more workers"
    assert sent["state"] == owners + backups


KINDS = ("critical", "state")


def test_workers_that_compute_otherwise_are_tolerated_when_asked_for(
    context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    story = Story(
        steps=STEPS,
        deaths=(Death(what="nodes", nth=3),),
        tolerant=True,
        capability=("b", "default"),
    )
    with Job(context, tmp_path, story, "abcd") as job:
        found = job.written(deaths=1)
    if {each["kinds"] for each in found} == {1}:
        pytest.skip("this torch knows one instruction set on this processor, or it was b that died")
    losses = found[0]["losses"]
    copies: dict[str, set[str]] = {}
    for each in found:
        assert each["losses"] == losses
        for name, state in (*each["owned"].items(), *each["shadows"].items()):
            copies.setdefault(name, set()).add(json.dumps(state, sort_keys=True))
    assert {len(states) for states in copies.values()} == {1}, "all copies are equal"
    for step, loss in losses.items():
        assert loss == pytest.approx(right[1][int(step) - 1], rel=1e-4)
    assert list(losses.values()) != right[1], "it has really computed otherwise"


def test_a_run_that_ended_goes_on_from_its_checkpoint_with_other_workers(
    context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    url = str(tmp_path / "checkpoints")
    with Job(context, tmp_path, Story(steps=3, checkpoint_url=url), "abc") as job:
        for process in job.workers.values():
            process.join(PATIENCE_S)
            assert process.exitcode == 0
    with Job(context, tmp_path, Story(steps=STEPS, checkpoint_url=url), "de") as job:
        for found in job.found(right, deaths=0):
            assert list(found["losses"]) == ["4", "5", "6"], "the last step was written, too"


@full
def test_a_death_while_state_is_on_its_way_to_a_newcomer(
    context: ForkServerContext, right: Right, tmp_path: Path
) -> None:
    dies = Death(what="state", nth=1, epochs=(2,))
    story = Story(steps=STEPS, deaths=(dies,), size_at=(2, 5))
    with Job(context, tmp_path, story, "abcd") as job:
        job.wait_for_all_to_wait()
        job.start("e")
        for found in job.found(right, deaths=1):
            assert found["workers"] == 4
