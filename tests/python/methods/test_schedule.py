"""What is due in a round, beside the papers' schedules as functions of the step."""

from __future__ import annotations

from atoll.methods import fragments, schedule
from atoll.methods.schedule import Do, Event

ROUNDS = 6
SETTINGS = [
    (period, count, overlap)
    for period in range(1, 9)
    for count in range(1, period + 1)
    for overlap in range(period)
]


def run(period: int, count: int, overlap: int) -> list[tuple[int, Do, int]]:
    """(step since the beginning, what, index) of some rounds, in the order in which it is done."""
    offsets = fragments.offsets(count, period)
    return [
        (round_ * period + event.at, event.do, event.index)
        for round_ in range(ROUNDS)
        for event in schedule.streaming(round_, offsets, period=period, overlap=overlap)
    ]


def test_rounds_are_the_papers_schedule() -> None:
    for period, count, overlap in SETTINGS:
        check_schedule(period, count, overlap)


def check_schedule(period: int, count: int, overlap: int) -> None:
    offsets = fragments.offsets(count, period)
    done = run(period, count, overlap)
    for step in range(1, ROUNDS * period + 1):
        starts, applies = fragments.due(step, offsets, period=period, overlap=overlap)
        here = [(do, schedule.fragment_of(index, count)) for at, do, index in done if at == step]
        assert sorted(p for do, p in here if do is Do.LAUNCH) == sorted(starts)
        taken = [p for do, p in here if do in (Do.ABSORB, Do.ABSORB_AT_ONCE)]
        assert sorted(taken) == sorted(applies)


def test_ops_are_launched_and_taken_up_in_sequence() -> None:
    """So whoever waits for op k has launched it, and nobody waits for a later one before."""
    for period, count, overlap in SETTINGS:
        check_sequence(period, count, overlap)


def check_sequence(period: int, count: int, overlap: int) -> None:
    done = run(period, count, overlap)
    launched = [index for _, do, index in done if do is Do.LAUNCH]
    taken = [index for _, do, index in done if do in (Do.ABSORB, Do.ABSORB_AT_ONCE)]
    assert launched == list(range(len(launched)))
    assert taken == list(range(len(taken)))
    newest = -1
    oldest = 0
    for _, do, index in done:
        if do is Do.LAUNCH:
            newest = index
            # A fragment's exchange is over before its next one begins.
            assert index - oldest < count
        elif do in (Do.ABSORB, Do.ABSORB_AT_ONCE):
            assert index <= newest
            oldest = index + 1
    for round_ in range(1, ROUNDS):
        before = [index for at, do, index in done if do is Do.LAUNCH and at <= round_ * period]
        assert len(before) == schedule.launched_before(round_, count)


def test_a_round_late() -> None:
    def kinds(round_: int, first_blocks: bool) -> list[tuple[Do, int]]:
        events = schedule.a_round_late(round_, period=5, first_blocks=first_blocks)
        assert all(event.at == 5 for event in events)
        return [(event.do, event.index) for event in events]

    assert kinds(0, False) == [(Do.STAGE, 0), (Do.LAUNCH, 0)]
    assert kinds(1, False) == [(Do.STAGE, 1), (Do.ABSORB, 0), (Do.LAUNCH, 1)]
    assert kinds(0, True) == [(Do.STAGE, 0), (Do.LAUNCH, 0), (Do.ABSORB_AT_ONCE, 0)]
    assert kinds(1, True) == [(Do.STAGE, 1), (Do.LAUNCH, 1)]
    assert kinds(2, True) == [(Do.STAGE, 2), (Do.ABSORB, 1), (Do.LAUNCH, 2)]


def test_blocking() -> None:
    assert schedule.blocking(3, period=5) == (
        Event(5, Do.STAGE, 3),
        Event(5, Do.LAUNCH, 3),
        Event(5, Do.ABSORB_AT_ONCE, 3),
    )
