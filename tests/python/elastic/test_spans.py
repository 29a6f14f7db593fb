"""Where a worker's time goes, on a clock that is told."""

from __future__ import annotations

import pytest

from atoll.elastic.identity import Spine
from atoll.elastic.requests import Gather, Receive
from atoll.elastic.spans import STEPS, Notice, Spans, described
from atoll.elastic.transition import first_layout, repaired

SPINE = Spine(seed=1, micro_batches=6, layer_sizes=(64,) * 5, vshards=6)
BEFORE = first_layout(SPINE, ["a", "b", "c", "d"], pipeline=2)
AFTER = repaired(BEFORE, {"a", "c", "d"}, SPINE)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_layout_in_one_line() -> None:
    assert described(BEFORE) == (
        "2 stages: layers 0-1 on 2 (3+3 micro-batches), layers 2-4 on 2 (3+3 micro-batches)"
    )
    assert "layers 0-1 on 1 (6 micro-batches)" in described(AFTER)


def test_the_parts_of_a_recovery_and_the_throughput_around_it() -> None:
    clock = Clock()
    spans = Spans(tokens=1200, clock=clock)

    def steps(seconds: float, layout: object = BEFORE) -> list[Notice]:
        found = []
        for _ in range(STEPS + 1):
            clock.wait(seconds)
            found += spans.step_over(BEFORE if layout is BEFORE else AFTER)
        return found

    layout, throughput = steps(0.1)
    assert (layout.kind, layout.text) == ("layout", described(BEFORE))
    assert throughput == Notice(kind="throughput", text="12000 tokens/s with 4 workers")
    spans.request(Gather(what="prepared", text=""))  # of no interest outside a recovery
    spans.interrupted(0.006)
    clock.wait(0.010)
    spans.interrupted(0.001)  # another loss, while they tell each other: it counts on
    spans.request(Gather(what="report", text=""))
    clock.wait(0.020)
    spans.request(Receive())
    clock.wait(0.003)
    spans.request(Gather(what="evidence", text=""))
    clock.wait(0.004)
    spans.request(Receive())
    clock.wait(0.050)
    spans.request(Gather(what="prepared", text=""))
    clock.wait(0.001)
    layout, recovery = spans.step_over(AFTER)
    assert layout.text == described(AFTER)
    assert recovery.text == "95 ms (view 7, agree 30, state 3, verify 4, redo 51)"
    assert sum(spans.seconds.values()) == pytest.approx(0.095)
    (throughput,) = steps(0.15, AFTER)
    assert throughput.text == "8000 tokens/s with 3 workers, 12000 before"
