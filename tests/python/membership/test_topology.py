"""Who measures whom when, and the bytes that come of it."""

from __future__ import annotations

import itertools
import random

import pytest

from atoll import _core
from atoll.membership.messages import LinkFigures, PeerId
from atoll.membership.topology import MAX_MEMBERS, encode, is_news, partner, slots

Figures = dict[tuple[PeerId, PeerId], LinkFigures]


def link(rate_bytes_per_s: float, rtt_s: float) -> LinkFigures:
    return LinkFigures(rate_bytes_per_s=rate_bytes_per_s, rtt_s=rtt_s)


def ids(count: int) -> list[PeerId]:
    return [bytes([number]) * 16 for number in range(count)]


def all_links(members: list[PeerId], seed: int) -> Figures:
    draw = random.Random(seed)
    pairs = itertools.permutations(members, 2)
    # Each a third of the one before: none is like another.
    rates = [1e9 / 3**index for index, _ in enumerate(itertools.permutations(members, 2))]
    draw.shuffle(rates)
    return {
        pair: link(rate, draw.uniform(1e-3, 0.2)) for pair, rate in zip(pairs, rates, strict=True)
    }


@pytest.mark.parametrize("members", range(2, 20))
def test_everybody_meets_everybody_once_and_never_two_at_a_time(members: int) -> None:
    met: list[frozenset[int]] = []
    for slot in range(slots(members)):
        for rank in range(members):
            other = partner(members, slot, rank)
            if other is None:
                continue
            assert other != rank
            assert partner(members, slot, other) == rank
            if rank < other:
                met.append(frozenset((rank, other)))
    assert len(met) == len(set(met)) == members * (members - 1) // 2


def test_a_job_of_one_needs_no_slot() -> None:
    assert slots(1) == 0


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_core_reads_what_is_written_here(count: int) -> None:
    members = ids(count)
    figures = all_links(members, seed=count)
    topology = _core.Topology(encode(members, figures))
    assert topology.members == count
    assert sorted(topology.ring) == list(range(count))
    assert sum(topology.part_weights) == 65536
    for (i, one), (j, other) in itertools.permutations(enumerate(members), 2):
        rate, rtt_s = topology.link(i, j)
        assert rate == pytest.approx(figures[one, other].rate_bytes_per_s, abs=501)
        assert rtt_s == pytest.approx(figures[one, other].rtt_s, abs=6e-7)


def test_a_member_sends_and_receives_what_its_fastest_link_does() -> None:
    a, _, c = members = ids(3)
    figures = all_links(members, seed=1)
    figures[a, c] = link(5e9, 0.01)
    words = [
        int.from_bytes(encode(members, figures)[4 + 4 * i : 8 + 4 * i], "little") for i in range(6)
    ]
    assert words[0] == 5_000_000  # a sends
    assert words[5] == 5_000_000  # c receives
    assert words[1] < 1_000_001


def test_what_was_not_measured_is_like_the_way_back_or_like_the_others() -> None:
    a, b, c = members = ids(3)
    figures = {(a, b): link(1e6, 0.01), (b, a): link(2e6, 0.02), (a, c): link(9e6, 0.09)}
    topology = _core.Topology(encode(members, figures))
    assert topology.link(2, 0) == pytest.approx((9e6, 0.09))
    assert topology.link(1, 2) == pytest.approx((2e6, 0.02))  # the medians


def test_rates_that_are_alike_are_taken_to_be_equal() -> None:
    a, b, c = members = ids(3)
    rates = {(a, b): 200e6, (b, a): 130e6, (b, c): 150e6, (c, b): 190e6, (a, c): 40e6, (c, a): 30e6}
    figures = {pair: link(rate, 0.08) for pair, rate in rates.items()}
    topology = _core.Topology(encode(members, figures))
    assert {topology.link(*pair)[0] for pair in [(0, 1), (1, 0), (1, 2), (2, 1)]} == {150e6}
    assert {topology.link(*pair)[0] for pair in [(0, 2), (2, 0)]} == {30e6}
    assert topology.part_weights == [21846, 21845, 21845]


def test_nothing_is_said_when_nothing_is_known_or_there_are_too_many() -> None:
    members = ids(3)
    assert encode(members, {}) == b""
    stranger = b"s" * 16
    assert encode(members, {(members[0], stranger): link(1e6, 0.1)}) == b""
    assert encode(members[:1], {}) == b""
    crowd = [number.to_bytes(16, "little") for number in range(MAX_MEMBERS + 1)]
    assert encode(crowd, {(crowd[0], crowd[1]): link(1e6, 0.1)}) == b""


def test_figures_out_of_range_are_said_as_the_nearest_that_can_be() -> None:
    members = ids(2)
    figures = {(members[0], members[1]): link(1e30, 1e-12)}
    assert _core.Topology(encode(members, figures)).link(0, 1) == pytest.approx(
        ((2**32 - 1) * 1e3, 1e-6)
    )


def test_only_what_differs_much_is_news() -> None:
    members = ids(3)
    figures = all_links(members, seed=2)
    old = encode(members, figures)
    pair = (members[0], members[1])
    was = figures[pair]

    def news(rate: float, rtt_s: float) -> bool:
        changed = figures | {pair: link(rate, rtt_s)}
        return is_news(old, encode(members, changed))

    assert is_news(b"", old)
    assert not is_news(old, b"")
    assert not is_news(old, old)
    assert not news(was.rate_bytes_per_s * 1.2, was.rtt_s * 1.2)
    assert news(was.rate_bytes_per_s * 1.4, was.rtt_s)
    assert news(was.rate_bytes_per_s / 1.4, was.rtt_s)
    assert news(was.rate_bytes_per_s, was.rtt_s * 1.6 + 0.002)
    short = figures | {pair: link(was.rate_bytes_per_s, 1e-4)}
    longer = figures | {pair: link(was.rate_bytes_per_s, 1e-3)}
    assert not is_news(encode(members, short), encode(members, longer))  # less than 2 ms
