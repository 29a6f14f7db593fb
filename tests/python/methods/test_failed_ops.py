"""An exchange that fails on all islands alike has changed nothing, and the next one goes well."""

from __future__ import annotations

import time

import pytest
from churn import PATIENCE_S, Island, Job
from test_churn import METHODS, STEPS

from atoll.errors import DeadlineExceeded

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("name", ["diloco", "diloco delayed", "sparse", "streaming"])
def test_an_exchange_that_is_too_late_is_left_out_by_all(name: str) -> None:
    """Everybody waits for one who waits until all others have given up."""

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        late = job.islands[1]
        if island is late and (round_, step) == (2, STEPS - 1) and not late.survived:
            end = time.monotonic() + PATIENCE_S
            others = [job.islands[0], job.islands[2]]
            while not all(one.survived for one in others) and time.monotonic() < end:
                time.sleep(0.01)

    with Job(
        METHODS[name],
        rounds=7,
        founders=3,
        on_step=on_step,
        settings={"op_timeout_s": 3.0},
        survives=(DeadlineExceeded,),
    ) as job:
        job.wait()
        assert all(one.survived for one in job.islands)
        assert job.unequal() == []
        assert max(job.islands[0].rounds) == 7
        # What was trained meanwhile, and after, is in what they share.
        assert [did for _, did in job.islands[0].contributed][-2:] == [True, True]
