"""When figures of links are corrected by what arrives over them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from atoll.collectives.link_watch import FIRST_WAIT_S, LONGEST_WAIT_S, LinkWatch, strays

ONE, TWO = b"\x01" * 16, b"\x02" * 16


def link(delivered: float, expected: float, peer: bytes = ONE) -> Any:
    return SimpleNamespace(
        peer=peer, delivered_bytes_per_s=delivered, expected_bytes_per_s=expected
    )


class Bench:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.told: list[tuple[float, Mapping[bytes, float]]] = []
        self.links = [link(8e6, 8e6)]
        self.watch = LinkWatch(
            lambda: SimpleNamespace(links=self.links),  # type: ignore[arg-type, return-value]
            lambda times: self.told.append((self.now_s, times)),
            lambda: self.now_s,
        )

    def run(self, seconds: float, epoch: int, plan: str = "direct") -> None:
        for _ in range(round(seconds * 4)):
            self.now_s += 0.25
            self.watch.op_over(epoch, plan)


def test_only_what_is_far_from_the_figures_strays() -> None:
    assert strays([link(0, 0), link(0, 8e6), link(6e6, 8e6), link(12e6, 8e6)], faster=True) == {}
    assert strays([link(8e6, 8e6), link(4e6, 8e6, TWO)], faster=False) == {TWO: 0.5}
    assert strays([link(16e6, 8e6)], faster=True) == {ONE: 2.0}
    assert strays([link(16e6, 8e6)], faster=False) == {}


def test_nothing_is_told_while_all_is_as_expected() -> None:
    bench = Bench()
    bench.run(100, epoch=2)
    assert bench.told == []


def test_what_lasts_is_told_soon_and_then_ever_more_rarely_if_nothing_comes_of_it() -> None:
    bench = Bench()
    bench.links = [link(4e6, 8e6)]
    bench.run(3000, epoch=2)
    at = [now_s for now_s, _ in bench.told]
    assert at[0] <= 103
    assert bench.told[0][1] == {ONE: 0.5}
    waits = [after - before for before, after in pairwise(at)]
    assert waits[0] >= FIRST_WAIT_S
    assert waits[:4] == sorted(waits[:4])
    assert waits[1] >= 2 * FIRST_WAIT_S
    assert max(waits) <= LONGEST_WAIT_S + 2


def test_in_a_view_with_new_figures_it_tells_soon_again() -> None:
    bench = Bench()
    bench.links = [link(4e6, 8e6)]
    bench.run(1000, epoch=2)
    bench.links = [link(8e6, 8e6)]
    bench.run(600, epoch=3)
    before = len(bench.told)
    bench.links = [link(4e6, 8e6)]
    bench.run(4 * FIRST_WAIT_S, epoch=3)
    assert len(bench.told) >= before + 2


def test_a_moment_is_not_told() -> None:
    bench = Bench()
    for _ in range(50):
        bench.links = [link(4e6, 8e6)]
        bench.run(1, epoch=2)
        bench.links = [link(8e6, 8e6)]
        bench.run(1, epoch=2)
    assert bench.told == []


def test_a_ring_may_have_a_whole_line() -> None:
    bench = Bench()
    bench.links = [link(24e6, 8e6)]
    bench.run(1, epoch=2, plan="ring")
    bench.run(100, epoch=2)
    assert bench.told == []
    bench.run(10, epoch=3)  # no ring in this view
    assert bench.told[0][1] == {ONE: 3.0}
    bench.links = [link(4e6, 8e6)]
    bench.run(30, epoch=4, plan="ring")
    assert bench.told[-1][1] == {ONE: 0.5}
