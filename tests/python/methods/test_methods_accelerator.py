"""Models on a real accelerator: states as on the host, bit by bit; islands that die and come."""

from __future__ import annotations

import pytest
import torch
from churn import Island, Job, Model
from test_churn import DIVERGENT, METHODS, check_equal

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
    pytest.mark.processes,
]

ROUNDS = 10
ALL = {**METHODS, **DIVERGENT}


def on_accelerator() -> torch.nn.Module:
    return Model().cuda()


def alone(name: str, *, on_host: bool) -> dict[str, torch.Tensor]:
    """Where one island's model ends."""
    made = Model if on_host else on_accelerator
    with Job(ALL[name], rounds=ROUNDS, founders=1, model=made) as job:
        job.wait()
        (island,) = job.islands
        assert len(island.rounds) == ROUNDS
        assert island.model is not None
        return {key: value.cpu() for key, value in island.model.state_dict().items()}


@pytest.mark.parametrize("name", ALL)
def test_a_model_ends_where_it_does_on_the_host(name: str) -> None:
    """The inner steps are a multiplication and a subtraction, which both do alike."""
    ours, others = alone(name, on_host=False), alone(name, on_host=True)
    for key, value in others.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_one_dies_and_one_comes(name: str) -> None:
    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        number = job.islands.index(island)
        if number == 1 and (round_, step) == (3, 4):
            island.die()
        if number == 0 and (round_, step) == (5, 3):
            job.join_now(island)

    with Job(
        METHODS[name], rounds=ROUNDS, founders=3, on_step=on_step, model=on_accelerator
    ) as job:
        job.wait()
        check_equal(job)
        assert len(job.islands) == 4
        assert sorted(job.islands[0].rounds) == list(range(1, ROUNDS + 1))
        assert any(did for _, did in job.islands[3].contributed)
        assert all(p.is_cuda for p in job.islands[3].model.parameters())


@pytest.mark.parametrize("name", DIVERGENT)
def test_divergent_methods_go_on(name: str) -> None:
    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        if job.islands.index(island) == 1 and (round_, step) == (3, 4):
            island.die()

    with Job(
        DIVERGENT[name], rounds=ROUNDS, founders=3, on_step=on_step, model=on_accelerator
    ) as job:
        job.wait()
        assert sorted(job.islands[0].rounds) == list(range(1, ROUNDS + 1))
