"""Outer state that changes in memory is found and mended, also while exchanges are under way."""

from __future__ import annotations

import time

import pytest
import torch
from churn import PATIENCE_S, Island, Job
from test_churn import METHODS, STEPS

from atoll.methods.outer_state import OuterState
from atoll.state.parity import Vote

pytestmark = pytest.mark.processes


def flip(state: OuterState) -> None:
    """The fragment that is sent off last: others are under way when it is found."""
    state.now[-1].theta.view(torch.int32)[0] ^= 1 << 30


def watch_heals(island: Island, healed: list[str]) -> None:
    session = island.session
    assert session is not None
    over = session.round_over

    def told(**fields: object) -> None:
        if fields["healed"]:
            healed.append(str(fields["healed"]))
        over(**fields)  # type: ignore[arg-type]

    session.round_over = told  # type: ignore[method-assign]


def check_whole(job: Job, rounds: int) -> None:
    job.wait()
    states = [one.method.outer_parameters() for one in job.islands]  # type: ignore[union-attr]
    assert all(torch.equal(state, states[0]) for state in states)
    assert bool(torch.isfinite(states[0]).all())
    assert float(states[0].abs().max()) < 10
    last = max(job.islands[0].digests)
    assert len({one.digests[last] for one in job.islands}) == 1
    assert sorted(job.islands[0].rounds) == list(range(1, rounds + 1))


@pytest.mark.parametrize("name", ["diloco", "sparse", "streaming", "streaming fp4, overlap 4"])
def test_memory_that_changes_is_mended(name: str) -> None:
    healed: list[str] = []

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        if island is job.islands[1] and (round_, step) == (2, 3):
            watch_heals(island, healed)
            assert island.method is not None
            flip(island.method._state)

    with Job(METHODS[name], rounds=7, founders=3, on_step=on_step) as job:
        check_whole(job, 7)
        (told_of,) = healed
        assert "1 of" in told_of or "2 of" in told_of
        assert STEPS == 6


def test_memory_that_changes_as_an_exchange_begins() -> None:
    """A round late, the exchange is in a thread of its own, which sees it."""
    healed: list[str] = []

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        if island is job.islands[1] and (round_, step) == (2, 3):
            watch_heals(island, healed)
            assert island.method is not None
            parity = island.method._parity
            examine = parity.examine

            def late(state: OuterState, fragment: int, round_: int) -> Vote | None:
                if round_ == 3:
                    flip(state)
                return examine(state, fragment, round_)

            parity.examine = late  # type: ignore[method-assign]

    with Job(METHODS["diloco delayed"], rounds=7, founders=3, on_step=on_step) as job:
        check_whole(job, 7)
        (told_of,) = healed
        assert "1 of" in told_of or "2 of" in told_of


def test_what_work_began_from_changes_while_its_successor_is_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A round late, work is measured from a state that is replaced before its exchange begins."""
    healed: list[str] = []

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        if island is job.islands[1] and (round_, step) == (2, 3):
            watch_heals(island, healed)
            assert island.method is not None
            (under,) = island.method._flights
            end = time.monotonic() + PATIENCE_S
            while not under.flight.done():  # it has made the next state from this one
                assert time.monotonic() < end
                time.sleep(0.001)
            flip(island.method._state)

    with Job(METHODS["diloco delayed"], rounds=7, founders=3, on_step=on_step) as job:
        check_whole(job, 7)
        assert healed == []  # what is wrong was replaced
        assert [number for number, did in job.islands[1].contributed if not did] == [3]
    said = [record.getMessage() for record in caplog.records]
    assert sum("its work is left out of this round" in line for line in said) == 1
    assert not any("the mean of all members is not finite" in line for line in said)
