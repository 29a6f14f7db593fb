"""Islands that join and die in every phase of a round: those who hold the same state stay equal."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import torch
from churn import PATIENCE_S, Island, Job, Make, Model

import atoll

pytestmark = pytest.mark.processes

STEPS = 6  # of a round


def diloco(**options: Any) -> Make:
    return lambda session, model, inner: atoll.DiLoCo(
        session, model, inner, sync_every=STEPS, **options
    )


def streaming(**options: Any) -> Make:
    chosen = {"fragments": 3, "overlap": 1, "codec": None, **options}
    return lambda session, model, inner: atoll.StreamingDiLoCo(
        session, model, inner, sync_every=STEPS, **chosen
    )


def other(kind: str, **options: Any) -> Make:
    return lambda session, model, inner: getattr(atoll, kind)(
        session, model, inner, sync_every=STEPS, **options
    )


METHODS = {
    "diloco": diloco(),
    "diloco int8": diloco(codec="int8"),
    "diloco econtrol": diloco(codec="two_bit", error_feedback="econtrol", allocation=2),
    "diloco delayed": diloco(overlap="delayed"),
    "local sgd": other("LocalSGD"),
    "sparse": other("SparseLoCo"),
    "streaming": streaming(),
    "streaming fp4, overlap 4": streaming(codec="fp4", overlap=4),
    "streaming sequential, overlap 0": streaming(order="sequential", overlap=0),
}


DIVERGENT = {
    "diloco eager": diloco(overlap="eager"),
    "noloco": other("NoLoCo", deadline_s=5.0),
}


@pytest.mark.parametrize("name", METHODS)
def test_somebody_joins_in_every_phase(name: str) -> None:
    """One round after another, each a step later; and the one who joined before leaves."""

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        if island is job.islands[0] and round_ >= 2 and step == (round_ - 2) + 1:
            job.join_now(island)

    with Job(METHODS[name], rounds=STEPS + 5, founders=2, on_step=on_step) as job:
        job.wait()
        assert len(job.islands) == 2 + STEPS
        check_equal(job)
        first = job.islands[0]
        assert sorted(first.rounds) == list(range(1, STEPS + 6))
        # Everybody who came has contributed in the end, the last one apart.
        for joiner in job.islands[2:-1]:
            assert any(did for _, did in joiner.contributed), joiner


@pytest.mark.parametrize("name", METHODS)
def test_somebody_dies_in_every_phase(name: str) -> None:
    """Seven founders, one of whom dies in each round, each a step later."""

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        number = job.islands.index(island)
        if number and round_ == number + 1 and step == number:
            island.die()

    with Job(METHODS[name], rounds=STEPS + 4, founders=STEPS + 1, on_step=on_step) as job:
        job.wait()
        check_equal(job)
        assert sorted(job.islands[0].rounds) == list(range(1, STEPS + 5))


def check_equal(job: Job) -> None:
    """Every revision that several islands published was the same state; and there are such."""
    assert job.unequal() == []
    held = Counter(revision for island in job.islands for revision in island.digests)
    assert sum(count > 1 for count in held.values()) >= STEPS


@pytest.mark.parametrize("name", DIVERGENT)
def test_divergent_methods_go_on(name: str) -> None:
    """Joins and deaths in turn, each a step later. The first island's last round waits for them."""
    deaths: list[int] = []
    all_dead = threading.Event()

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        number = job.islands.index(island)
        if number == 0 and round_ >= 2 and step == round_ - 1:
            job.join_now(island)
        if number == 0 and round_ == STEPS + 5:  # they count from 0
            assert all_dead.wait(PATIENCE_S)
        if number in range(1, STEPS + 1) and round_ >= number + 3 and step == number:
            deaths.append(number)
            if len(deaths) == STEPS:
                all_dead.set()
            island.die()

    with Job(DIVERGENT[name], rounds=STEPS + 6, founders=2, on_step=on_step) as job:
        job.wait()
        assert len(deaths) == STEPS
        assert sorted(job.islands[0].rounds) == list(range(1, STEPS + 7))
        assert all(digest == "" for digest in job.islands[0].rounds.values())


@pytest.mark.parametrize("name", ["diloco econtrol", "streaming", "sparse", "noloco"])
def test_where_torch_makes_tensors_by_default_does_not_matter(name: str) -> None:
    def elsewhere() -> torch.nn.Module:
        made = Model()
        torch.set_default_device("meta")  # of the island's thread
        return made

    ended = []
    for model in (elsewhere, Model):
        with Job({**METHODS, **DIVERGENT}[name], rounds=4, founders=1, model=model) as job:
            job.wait()
            assert len(job.islands[0].rounds) == 4
            assert job.islands[0].model is not None
            ended.append(job.islands[0].model.state_dict())
    assert all(torch.equal(value, ended[1][key]) for key, value in ended[0].items())
