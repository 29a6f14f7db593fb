"""Bytes by the formulas of docs/collectives.md and docs/codecs.md, seconds by the core's model."""

from __future__ import annotations

import numpy as np
import pytest

from atoll import _core
from atoll.planning.job import Choice
from atoll.planning.network import Network, payload_share, uniform
from atoll.planning.traffic import Traffic, Wires, pair_cost, pairs_of

LINE = 25e6  # bytes per second: 200 Mbit/s
ELEMENTS = 16 << 20  # 64 MiB of fp32


def all_reduced(
    network: Network, codec: str = "fp32", plan: str = "auto", elements: int = ELEMENTS
) -> Traffic:
    return Wires(network).traffic(
        Choice(method="diloco", every=1, codec=codec, plan=plan), elements
    )


@pytest.mark.parametrize(
    ("codec", "bits"), [("fp32", 32), ("int8", 8.125), ("fp4", 4.125), ("two_bit", 2.125)]
)
def test_an_all_reduce_sends_twice_all_but_the_own_part(codec: str, bits: float) -> None:
    found = all_reduced(uniform(4, LINE, 0.08, 1.0), codec, "direct")
    payload = 2 * 3 / 4 * ELEMENTS * bits / 8
    assert found.plan == "direct"
    assert payload < found.sent_bytes < 1.004 * payload  # headers of small chunks, and notices
    assert found.busy_s == pytest.approx(payload / LINE, rel=4e-3)
    # A hop that nothing overlaps, the commit's notice, and a chunk.
    assert found.latency_s == pytest.approx(0.08, abs=0.03)
    assert found.latency_s >= 0.08


def test_seconds_are_the_cost_models() -> None:
    network = uniform(5, LINE, 0.05, 1.0)
    topology = network.topology()
    assert topology is not None
    plan, chunk = _core.plan_all_reduce(ELEMENTS, 5, "fp32", topology)
    told = topology.predict(4 * ELEMENTS, chunk)[plan]
    found = all_reduced(network)
    assert found.plan == plan
    # Beside it: headers, a commit of one way, and no waiting for START on lines so slow.
    assert found.seconds == pytest.approx(told + 0.025, rel=4e-3)


def test_a_member_that_was_not_told_of_an_op_gets_little_of_it_before() -> None:
    def chunk_bytes(network: Network) -> int:
        return _core.plan_all_reduce(ELEMENTS, 4, "fp32", network.topology())[1]

    quick, slow = uniform(4, 1e9, 0.08, 1.0), uniform(4, 1e6, 0.08, 1.0)
    # On the quick line three chunks are through in a moment, and START comes after 40 ms.
    wait_s = 0.04 - 3 * chunk_bytes(quick) / 1e9
    assert wait_s > 0.03
    assert all_reduced(quick).latency_s == pytest.approx(0.08 + wait_s, abs=0.002)
    slow_s = all_reduced(slow).latency_s
    assert slow_s == pytest.approx(0.08 + chunk_bytes(slow) / 1e6, rel=0.01)


@pytest.mark.parametrize("islands", [2, 3, 8, 40])
def test_beyond_the_cores_figures_equal_lines_cost_what_they_cost_with_them(islands: int) -> None:
    network = uniform(islands, LINE, 0.08, 1.0)
    wires = Wires(network)
    with_figures = wires.traffic(Choice(method="diloco", every=1), ELEMENTS)
    without = Wires(network)
    without.__dict__["topology"] = None  # as of a larger view
    told = without._seconds(4 * ELEMENTS, 512 << 10)
    assert wires.topology is not None
    known = wires.topology.predict(4 * ELEMENTS, 512 << 10)
    for plan in ("ring", "direct", "doubling", "mesh"):
        assert told[plan] == pytest.approx(known[plan], rel=1e-3)
    assert with_figures.plan in known


def test_a_slow_island_owns_less() -> None:
    site = np.arange(4)
    rate = np.full((4, 4), LINE)
    rate[3, :] = rate[:, 3] = LINE / 4
    network = Network(
        site=site, rate_bytes_per_s=rate, rtt_s=np.full((4, 4), 0.02), step_s=np.ones(4)
    )
    found = all_reduced(network)
    # It sends its vector and receives the result, once: nothing is its own part.
    assert found.plan == "direct"
    assert found.busy_s == pytest.approx(4 * ELEMENTS / (LINE / 4), rel=0.01)
    assert found.most_sent_bytes > 1.1 * found.sent_bytes


def test_sites_that_share_their_way_out_are_grouped() -> None:
    near, far = 4e8, 1e7
    rate, rtt = np.array([[near, far], [far, near]]), np.array([[0.001, 0.1], [0.1, 0.001]])
    network = Network(
        site=np.repeat([0, 1], 4), rate_bytes_per_s=rate, rtt_s=rtt, step_s=np.ones(8)
    )
    found = all_reduced(network)
    vector = 4 * ELEMENTS
    assert found.plan == "grouped"
    # Inside each site twice 3/4 of the vector by each, between them 2 (K-1)/K of a fourth of it.
    assert found.sent_bytes == pytest.approx((2 * 3 / 4 + 2 * 1 / 2 / 4) * vector, rel=1e-3)
    assert found.busy_s == pytest.approx(vector / far, rel=0.01)


def test_everybody_sends_its_sparse_payload_to_everybody() -> None:
    network = uniform(10, LINE, 0.08, 1.0)
    choice = Choice(method="sparseloco", every=30)
    assert choice.sparse_bits == 0.21875
    assert 32 / choice.sparse_bits == pytest.approx(146.29, abs=0.01)
    found = Wires(network).traffic(choice, ELEMENTS)
    payload = 9 * ELEMENTS * 0.21875 / 8
    assert found.sent_bytes == pytest.approx(payload, rel=5e-3)
    assert found.busy_s == pytest.approx(payload / LINE, rel=5e-3)


@pytest.mark.parametrize("islands", [2, 3, 6, 7, 10_000])
def test_every_island_has_one_partner_and_one_of_an_odd_number_has_two(islands: int) -> None:
    sizes = np.bincount(np.bincount(pairs_of(islands, 5)), minlength=4)
    odd = islands % 2
    assert sizes.tolist() == [0, 0, islands // 2 - odd, odd]
    assert not np.array_equal(pairs_of(10, 1), pairs_of(10, 2))


def test_a_pair_is_as_fast_as_the_slower_way_between_its_two() -> None:
    rate = np.array([[9.0, 2.0, 8.0], [4.0, 9.0, 5.0], [1.0, 3.0, 9.0]])
    rtt = np.array([[0.0, 0.2, 0.4], [0.2, 0.0, 0.6], [0.4, 0.6, 0.0]])
    network = Network(site=np.array([0, 1]), rate_bytes_per_s=rate, rtt_s=rtt, step_s=np.ones(2))
    pair = pair_cost(network, 12.0, 0)
    np.testing.assert_allclose(pair.busy_s, [6.0, 6.0])
    np.testing.assert_allclose(pair.latency_s, [0.1, 0.1])
    three = Network(site=np.array([0, 1, 2]), rate_bytes_per_s=rate, rtt_s=rtt, step_s=np.ones(3))
    group = pair_cost(three, 12.0, 0)
    np.testing.assert_allclose(group.busy_s, [12 / 2 + 12 / 1, 12 / 2 + 12 / 3, 12 / 1 + 12 / 3])
    np.testing.assert_allclose(group.latency_s, [0.2, 0.3, 0.3])


def test_packets_have_headers() -> None:
    assert payload_share(1500) == pytest.approx(1448 / 1500)
    assert payload_share(0) == 1
