"""What the demo concludes from its records: right figures of a good run, a verdict on a bad one."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import demo_plot
import demo_summary
import pytest
from demo_summary import Event, Run, parse_event, summarize, table

from atoll.data.journal import Entry
from atoll.data.ledger import Span

PARAMETERS = 1000
SAMPLES = 100
NAMES = {"island-0": "aa", "island-1": "bb", "island-2": "cc", "island-3": "dd"}


def entry(number: int, members: str, *, end_s: float, first: int, data_epoch: int = 0) -> Entry:
    """A round that ends at `end_s`, in which each of `members` uses ten samples from `first` on."""
    used: dict[str, tuple[Span, ...]] = {
        NAMES[f"island-{member}"]: ((first + 10 * i, first + 10 * i + 10),)
        for i, member in enumerate(members)
    }
    return Entry(
        time_s=end_s, round=number, epoch=1, data_epoch=data_epoch, digest=f"d{number}", used=used
    )


# Rounds of 1 s; island-1 dies at 12.5 in round 3; island-3 is started at 13.2, becomes a member at
# 13.9 and works from round 5 on. One pass of 100 samples is over with round 4.
ROUNDS = [
    entry(1, "012", end_s=11.0, first=0),
    entry(2, "012", end_s=12.0, first=30),
    entry(3, "02", end_s=13.1, first=60),
    entry(4, "02", end_s=14.0, first=80),
    entry(5, "023", end_s=15.0, first=0, data_epoch=1),
]
JOURNALS = {
    "island-0": ROUNDS,
    "island-1": ROUNDS[:2],
    "island-2": [replace(each, time_s=each.time_s + 0.01) for each in ROUNDS],
    "island-3": ROUNDS[4:],
}


def event(kind: str, time_s: float, island: str = "", **fields: Any) -> Event:
    return Event(kind=kind, time_s=time_s, island=island, fields=fields)


def report(time_s: float, number: int, *, epoch: int, sent: int) -> Event:
    return event("report", time_s, "island-0", round=number, epoch=epoch, sent_bytes=sent)


EVENTS = [
    event("view", 10.0, epoch=1, members=["island-0", "island-1", "island-2"]),
    report(10.1, 0, epoch=0, sent=100),
    report(11.0, 1, epoch=1, sent=5_400),
    report(11.1, 1, epoch=1, sent=5_400),
    event("round", 11.1, round=1, loss=4.0),
    report(12.0, 2, epoch=1, sent=10_800),
    report(12.6, 2, epoch=1, sent=10_800),
    event("view", 12.6, epoch=2),  # the members were not known in time
    event("view", 12.7, epoch=3, members=["island-0", "island-2"]),
    report(13.1, 3, epoch=3, sent=19_000),
    report(13.3, 3, epoch=3, sent=19_000),
    event("joined", 13.9, "island-3", peer_id="dd", epoch=4),
    event("view", 13.9, epoch=4, members=["island-0", "island-2", "island-3"]),
    report(14.1, 4, epoch=3, sent=23_100),
    report(15.1, 5, epoch=4, sent=30_000),
]
RUN = Run(
    rounds=5,
    parameters=PARAMETERS,
    samples=SAMPLES,
    killed="island-1",
    killed_at_s=12.5,
    joiner_began_s=13.2,
    events=EVENTS,
    journals=JOURNALS,
    validation={0: 5.0, 1: 3.0, 2: 2.5, 3: 2.4, 4: 2.2, 5: 2.0},
)


def with_entry(island: str, changed: Entry) -> Run:
    """The good run, but for one island's record of one round."""
    entries = [changed if each.round == changed.round else each for each in JOURNALS[island]]
    return replace(RUN, journals={**JOURNALS, island: entries})


def test_a_good_run() -> None:
    summary = summarize(RUN)
    assert summary.failures == []
    assert summary.losses == (5.0, 2.5, 2.4, 2.0)
    assert summary.round_s == pytest.approx(1.0)
    assert summary.kill_to_view_s == pytest.approx(0.2)
    assert summary.kill_to_round_s == pytest.approx(0.6)
    assert summary.joiner == "island-3"
    assert summary.join_to_member_s == pytest.approx(0.7)
    assert summary.join_to_contribution_s == pytest.approx(1.8)
    assert summary.audit.positions == {0: 100, 1: 30}
    assert summary.digest == "d5"


def test_traffic_is_measured_between_rounds_of_one_view() -> None:
    three, two = demo_summary.traffic(EVENTS, PARAMETERS)
    assert (three.islands, three.sent, three.expected) == (3, 5_400, pytest.approx(5333.3, abs=0.1))
    assert (two.islands, two.sent, two.expected) == (2, 4_100, 4_000)


def test_losses_are_read_from_logs() -> None:
    log = "=== start\n357,024 parameters\nround 0: validation loss 5.211\nround 1: what?\n"
    assert demo_summary.validation(log + "round 12: validation loss 2.403\n") == {
        0: 5.211,
        12: 2.403,
    }


def test_throughput_counts_committed_samples() -> None:
    rates = demo_summary.throughput(demo_summary.commits(JOURNALS), 64)
    assert rates[0] == (12.0, pytest.approx(30 * 64))
    assert rates[1] == (13.1, pytest.approx(20 * 64 / 1.1))


@pytest.mark.parametrize(
    ("run", "failure"),
    [
        pytest.param(
            with_entry("island-2", replace(ROUNDS[3], digest="other")),
            "parity broken in round 4: island-0 d4, island-2 other",
            id="parity",
        ),
        pytest.param(
            with_entry("island-1", replace(ROUNDS[1], digest="other")),
            "parity broken in round 2: island-0 d2, island-1 other, island-2 d2",
            id="parity with the dead",
        ),
        pytest.param(
            replace(RUN, journals={**JOURNALS, "island-2": JOURNALS["island-2"][:4]}),
            "island-2 ended after round 4",
            id="an island that stopped",
        ),
        pytest.param(
            replace(RUN, journals={**JOURNALS, "island-3": []}),
            "island-3 ended after round 0",
            id="an island that never began",
        ),
        pytest.param(
            replace(RUN, journals={**JOURNALS, "island-0": [*ROUNDS[:1], *ROUNDS[2:]]}),
            "island-0 skipped a round: it has [1, 3, 4, 5]",
            id="a skipped round",
        ),
        pytest.param(
            replace(RUN, events=[each for each in EVENTS if each.kind != "joined"]),
            "the joiner contributed to no round",
            id="nobody joined",
        ),
        pytest.param(
            replace(RUN, validation={**RUN.validation, 5: 2.7}),
            "the validation loss did not fall",
            id="the loss rose",
        ),
        pytest.param(
            replace(RUN, validation={}),
            "the validation loss did not fall",
            id="the loss is not known",
        ),
        pytest.param(
            replace(RUN, validation={0: 5.0, 1: 3.0, 4: 2.2}),
            "the last outer parameters were not evaluated",
            id="the last loss is not known",
        ),
    ],
)
def test_a_bad_run_fails(run: Run, failure: str) -> None:
    assert failure in summarize(run).failures
    table(run, summarize(run))


def everywhere(changed: Entry) -> Run:
    journals = {
        island: [changed if each.round == changed.round else each for each in entries]
        for island, entries in JOURNALS.items()
    }
    return replace(RUN, journals=journals)


@pytest.mark.parametrize("first", [70, 90], ids=["doubled", "lost"])
def test_samples_used_twice_or_never_fail(first: int) -> None:
    run = everywhere(entry(4, "02" if first == 70 else "0", end_s=14.0, first=first))
    assert any(failure.startswith("pass 0: ") for failure in summarize(run).failures)
    assert "WRONGLY" in table(run, summarize(run))


def test_the_table_fits_a_terminal() -> None:
    lines = table(RUN, summarize(RUN)).splitlines()
    assert max(len(line) for line in lines) <= 100
    assert any("5.000 -> 2.500 | kill | 2.400 -> 2.000" in line for line in lines)
    assert any("none twice, none lost" in line for line in lines)


def test_a_run_that_shows_nothing_has_no_figures() -> None:
    empty = summarize(replace(RUN, events=[], journals={}))
    assert math.isnan(empty.kill_to_round_s)
    assert empty.failures


def test_events_are_parsed() -> None:
    line = '{"time": 1.5, "kind": "exited", "island": "island-1", "pid": 7, "loss": null}'
    assert parse_event(line) == event("exited", 1.5, "island-1", pid=7, loss=None)


def test_a_plot_is_written(tmp_path: Path) -> None:
    demo_plot.plot(RUN, 64, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
