"""Predictions, the recommended method, and warnings at the edges of a method's region."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from atoll.methods import fragments as real_fragments
from atoll.planning.job import METHODS, Choice, Job, fragments, memory_bytes_per_param
from atoll.planning.network import Network, uniform
from atoll.planning.predict import Prediction, enough_overlap, predict, recommended
from atoll.planning.regions import break_even_members, warnings
from atoll.planning.traffic import Wires

JOB = Job(params=100_000_000, layers=12)
LINE = 25e6


def predicted(choice: Choice, network: Network, job: Job = JOB) -> Prediction:
    return predict(job, choice, Wires(network))


def test_what_blocks_is_waited_for_in_full() -> None:
    network = uniform(4, LINE, 0.08, 0.5)
    choice = Choice(method="diloco", every=40)
    found = predicted(choice, network)
    exchange_s = Wires(network).traffic(choice, JOB.params).seconds
    assert found.sync_s == pytest.approx(exchange_s)
    assert found.round_s == pytest.approx(20 + exchange_s)
    assert found.waiting_s == pytest.approx(exchange_s)
    assert found.compute_utilization == pytest.approx(20 / (20 + exchange_s))
    assert found.hours == pytest.approx(10_000 / 40 * found.round_s / 3600)
    assert found.mean_bytes_per_s * found.round_s == pytest.approx(found.sent_bytes_per_round)
    assert found.peak_bytes_per_s == pytest.approx(LINE, rel=0.01)


def test_streaming_hides_what_fits_into_its_overlap() -> None:
    network = uniform(4, LINE, 0.08, 0.5)
    choice = Choice(method="streaming", every=40, overlap=5, codec="fp4")
    found = predicted(choice, network)
    assert found.sync_s < 2.5  # five steps
    assert found.compute_utilization == pytest.approx(1.0)
    assert found.exchanges_per_round == 4
    blocking = dataclasses.replace(choice, overlap=0)
    assert predicted(blocking, network).compute_utilization == pytest.approx(
        20 / (20 + 4 * found.sync_s)
    )


def test_the_least_overlap_that_is_enough_is_found() -> None:
    wires = Wires(uniform(4, LINE, 0.08, 0.5))
    choice = Choice(method="streaming", every=40, overlap=1, codec="fp4")
    least = enough_overlap(JOB, choice, wires, 0.95)
    assert least is not None
    for overlap in range(1, 6):
        with_it = predict(JOB, dataclasses.replace(choice, overlap=overlap), wires)
        assert (with_it.compute_utilization >= 0.95) is (overlap >= least)
    enough = dataclasses.replace(choice, overlap=least)
    assert enough_overlap(JOB, enough, wires, 0.95) is None
    slow = Wires(uniform(4, LINE / 100, 0.08, 0.5))
    assert enough_overlap(JOB, choice, slow, 0.95) is None


def test_one_island_waits_for_nobody() -> None:
    for method in METHODS:
        found = predicted(Choice(method=method, every=5), uniform(1, LINE, 0.1, 0.5))
        assert found.compute_utilization == 1
        assert found.sent_bytes_per_round == found.sync_s == found.peak_bytes_per_s == 0


def test_a_partners_slow_weights_go_while_inner_steps_run() -> None:
    network = uniform(4, LINE, 0.08, 0.5)
    found = predicted(Choice(method="noloco", every=50), network)
    one_way_s = 4 * JOB.params / LINE
    assert found.sent_bytes_per_round == pytest.approx(2 * 4 * JOB.params, rel=1e-3)
    assert found.round_s == pytest.approx(25 + one_way_s + 0.04, rel=1e-3)


def test_a_slow_island_holds_up_all_in_the_long_run_whoever_its_partners_are() -> None:
    network = uniform(16, 1e9, 0.0, 0.5)
    steps = network.step_s.copy()
    steps[0] = 1.0
    network = dataclasses.replace(network, step_s=steps)
    together = predicted(Choice(method="diloco", every=50), network)
    in_pairs = predicted(Choice(method="noloco", every=50), network)
    assert together.compute_utilization == pytest.approx((15 * 0.5 + 1) / 16, rel=0.02)
    assert in_pairs.compute_utilization == pytest.approx(together.compute_utilization, rel=0.05)


def test_ten_thousand_islands_take_seconds() -> None:
    """Of which a generous number is allowed: what goes by pairs of islands takes hours."""
    rng = np.random.default_rng(1)
    sites = 200
    rate = rng.uniform(1e6, 1e8, (sites, sites))
    rtt = rng.uniform(0.01, 0.3, (sites, sites))
    network = Network(
        site=np.sort(rng.integers(0, sites, 10_000)),
        rate_bytes_per_s=rate,
        rtt_s=(rtt + rtt.T) / 2,
        step_s=rng.uniform(0.4, 0.6, 10_000),
    )
    began = time.process_time()
    for method in METHODS:
        found = predicted(Choice(method=method, every=20), network)
        assert 0 < found.compute_utilization < 1
    assert time.process_time() - began < 60


def test_fragments_are_strided_and_spread_over_the_period() -> None:
    job = Job(params=1_000, layers=5, outside_params=100)
    parts = fragments(job, Choice(method="streaming", every=30, fragment_layers=2))
    assert [part.layers for part in parts] == [(0, 3), (1, 4), (2,), ()]
    assert [part.offset for part in parts] == [0, 7, 15, 22]
    assert [part.params for part in parts] == [360, 360, 180, 100]
    whole = fragments(job, Choice(method="diloco", every=30))
    assert [(part.layers, part.params) for part in whole] == [((0, 1, 2, 3, 4), 1_000)]


def test_memory_is_what_a_method_holds_beside_the_model() -> None:
    job = Job(params=1_200, layers=12)
    assert memory_bytes_per_param(Choice(method="diloco", every=30), job, 4) == 16
    streaming = Choice(method="streaming", every=30, overlap=1, fragment_layers=3)
    assert memory_bytes_per_param(streaming, job, 4) == 8 + 8 / 4
    assert memory_bytes_per_param(Choice(method="noloco", every=30), job, 4) == 20
    sparse = Choice(method="sparseloco", every=30)
    assert memory_bytes_per_param(sparse, job, 64) == 12 + 64 * 0.21875 / 8


def with_busy(**busy: float) -> dict[str, Prediction]:
    found = predicted(Choice(method="diloco", every=5), uniform(1, LINE, 0.1, 0.5))
    return {
        name.replace("_", "-"): dataclasses.replace(found, compute_utilization=value)
        for name, value in busy.items()
    }


def test_the_method_that_changes_training_least_of_those_that_keep_islands_busy() -> None:
    best, why = recommended(with_busy(data_parallel=0.2, diloco=0.7, streaming=0.96, noloco=0.99))
    assert best == "streaming"
    assert "96 %, where data-parallel 20 %, diloco 70 % would" in why
    assert recommended(with_busy(data_parallel=0.95, diloco=1.0))[0] == "data-parallel"
    best, why = recommended(with_busy(data_parallel=0.2, diloco=0.7, streaming=0.9499))
    assert best == "streaming"
    assert why.endswith("this one comes nearest, with 94.9 %")


@pytest.mark.parametrize(
    ("choice", "islands", "message"),
    [
        (Choice(method="streaming", every=5, overlap=5), 4, "overlap 5 is not below every 5"),
        (Choice(method="streaming", every=30, overlap=6), 4, "at most 5 is advised"),
        (
            Choice(method="streaming", every=30, fragment_layers=13),
            4,
            "fragments of 13 layers, and the model has 12",
        ),
        (
            Choice(method="streaming", every=3, fragment_layers=1),
            4,
            "12 fragments in 3 steps",
        ),
        (Choice(method="data-parallel", every=1, overlap=1), 4, "gradients that are 1 steps old"),
        (Choice(method="sparseloco", every=30, kept=700), 4, "dense two_bit takes 2.12"),
        (Choice(method="sparseloco", every=30, kept=200), 4, "32 to 128 is the range"),
        (Choice(method="sparseloco", every=30), 74, "above 73 members"),
        (Choice(method="diloco", every=30), 5_000, "at most 4096"),
    ],
)
def test_settings_outside_a_methods_region_are_warned_of(
    choice: Choice, islands: int, message: str
) -> None:
    found = warnings(JOB, choice, uniform(islands, LINE, 0.1, 0.5))
    assert len(found) == 1
    assert message in found[0]


def test_settings_inside_are_not() -> None:
    for choice in (
        Choice(method="streaming", every=30, overlap=5, fragment_layers=12),
        Choice(method="sparseloco", every=30),
        Choice(method="data-parallel", every=1),
        Choice(method="noloco", every=50),
    ):
        assert warnings(JOB, choice, uniform(73, LINE, 0.1, 0.5)) == []
    assert break_even_members(Choice(method="sparseloco", every=30)) == 73


@pytest.mark.parametrize(("layers", "each", "every"), [(12, 3, 100), (7, 2, 30), (5, 9, 8)])
def test_fragments_are_those_of_the_method(layers: int, each: int, every: int) -> None:
    job = Job(params=layers * 10 + 5, layers=layers, outside_params=5)
    parts = fragments(job, Choice(method="streaming", every=every, fragment_layers=each))
    names = ["embedding", *(f"blocks.{layer}.weight" for layer in range(layers))]
    real = real_fragments.fragments(names, len(parts) - 1)
    shown = [tuple(f"blocks.{layer}.weight" for layer in part.layers) for part in parts]
    assert [*shown[:-1], ("embedding",)] == list(real)
    assert tuple(part.offset for part in parts) == real_fragments.offsets(len(real), every)
