"""What cannot be trained is refused in one clear line, before anything is trained."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from models import task
from simulated import Simulation

import atoll
from atoll.elastic.fingerprint import fingerprint
from atoll.elastic.member import Member
from atoll.elastic.planner import Costs, memory_floor, split, spread
from atoll.errors import MismatchError, MisuseError

pytestmark = pytest.mark.training


def island(**changes: Any) -> None:
    """Up to where the session would be used, which is not there."""
    told = task()
    asked: dict[str, Any] = {
        "layers": told.layers,
        "micro_batches": told.micro_batches,
        "pipeline": 2,
        "batch": told.batch,
        "loss": told.loss,
        "tokens": told.tokens,
    }
    atoll.ElasticIsland(cast(Any, None), **{**asked, **changes})


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def test_more_stages_than_layers() -> None:
    with pytest.raises(MisuseError) as error:
        island(pipeline=6)
    assert one_line(error) == "6 stages for 5 layers: each stage needs a layer at least"


def test_more_chunks_than_layers_and_chunks_without_a_pipeline() -> None:
    with pytest.raises(MisuseError) as error:
        island(chunks=3)
    assert "2 stages of 3 chunks for 5 layers: each chunk needs a layer" in one_line(error)
    with pytest.raises(MisuseError) as error:
        island(pipeline=1, chunks=2)
    assert "2 chunks need a pipeline of 2 at least" in one_line(error)


def test_micro_batches_that_do_not_divide() -> None:
    with pytest.raises(MisuseError) as error:
        island(micro_batches=5)
    assert "84 tokens does not divide into 5 micro-batches" in one_line(error)


def test_too_few_workers_for_the_stages() -> None:
    with pytest.raises(MisuseError) as error:
        begin([Member("w0", task(), pipeline=2, arithmetic="same")])
    assert one_line(error) == "1 workers are too few for 2 stages"


def test_too_few_workers_for_the_memory() -> None:
    # Two stages of at most three layers: 3 * 10 bytes, and 3 * 60 that are shared.
    costs = Costs(
        seconds=(1.0,) * 5,
        replicated_bytes=(10,) * 5,
        sharded_bytes=(60,) * 5,
        memory_bytes=100,
    )
    members = [
        Member(f"w{i}", task(), pipeline=2, arithmetic="same", costs=costs) for i in range(3)
    ]
    with pytest.raises(MisuseError) as error:
        begin(members)
    assert "3 workers are too few" in one_line(error)
    assert "fits in 100 bytes a worker; 5 workers would do" in one_line(error)
    assert memory_floor(costs, 2) == 5
    split(costs, workers=spread(5, 2), micro_batches=6)  # they do
    with pytest.raises(MisuseError, match="fits"):
        split(costs, workers=spread(4, 2), micro_batches=6)
    with pytest.raises(MisuseError, match="more workers would not help"):
        split(replace(costs, memory_bytes=9), workers=[3, 2], micro_batches=6)


def begin(members: list[Member]) -> Simulation:
    simulation = Simulation(members, seed=0, steps=1)
    try:
        simulation.run()
    finally:
        assert not simulation.losses, "somebody has trained"
    return simulation


def test_workers_that_compute_otherwise() -> None:
    """Another instruction set is enough, and it is seen before the first step."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    ours, others = fingerprint(), fingerprint_of("default")
    torch.set_num_threads(before)
    if ours == others:
        pytest.skip("this torch knows one instruction set on this processor")
    members = [
        Member("w0", task(), pipeline=1, arithmetic=ours),
        Member("w1", task(), pipeline=1, arithmetic=others),
    ]
    with pytest.raises(MismatchError) as error:
        begin(members)
    assert "computes other numbers (processor, torch, or number of threads)" in one_line(error)


def fingerprint_of(capability: str) -> str:
    code = "import torch; torch.set_num_threads(1);"
    code += "from atoll.elastic.fingerprint import fingerprint; print(fingerprint())"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()
