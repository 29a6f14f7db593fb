"""How peers come to the coordinator: welcome, refusal, reconnection."""

from __future__ import annotations

import pytest
from bench import Bench, peer_id

from atoll.membership.messages import (
    Departure,
    Installed,
    Leave,
    Ready,
    Refused,
    Report,
    StopNotice,
    Suspect,
    Welcome,
)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"job": "lagoon"}, "runs job 'reef', not 'lagoon'"),
        ({"protocol_version": 1}, "install the same release"),
        ({"installed_epoch": 7}, "without its store"),
    ],
)
def test_a_stranger_is_refused_with_the_reason(changes: dict[str, object], part: str) -> None:
    bench = Bench()
    bench.register("a", **changes)
    refused = bench.last("a")
    assert isinstance(refused, Refused)
    assert part in refused.message
    assert bench.streams["a"] in bench.closed


def test_the_first_word_must_be_register() -> None:
    bench = Bench()
    bench.say("a", Ready())
    assert isinstance(bench.last("a"), Refused)


def test_a_running_island_is_not_replaced_but_a_dead_one_at_once() -> None:
    bench = Bench()
    bench.form("ab")
    bench.register("c", island="b")
    refused = bench.last("c")
    assert isinstance(refused, Refused)
    assert "already running" in refused.message
    bench.hang_up("b")
    bench.register("d", island="b")
    assert isinstance(bench.last("d"), Welcome)
    assert bench.told[-1].departure is Departure.CRASHED


def test_a_copied_process_is_refused() -> None:
    bench = Bench()
    bench.register("a")
    bench.register("b", peer=peer_id("a"), island="a")
    refused = bench.last("b")
    assert isinstance(refused, Refused)
    assert "draw its own" in refused.message


def test_a_member_that_noticed_a_dead_path_first_takes_over_its_stream() -> None:
    bench = Bench()
    bench.form("ab")
    old = bench.streams.pop("b")
    bench.register("b", installed_epoch=1)
    assert old in bench.closed
    assert bench.heard_by("b", Welcome)
    bench.link("ab")
    bench.wait(3.0, beating="ab")
    assert bench.members() == "ab"


def test_a_newcomer_that_was_lost_may_come_back_while_an_abort_is_under_way() -> None:
    bench = Bench()
    bench.form("ac")
    bench.join("b", "ac")
    bench.fenced("a", 1, c0=(5, 4, 4))
    bench.fenced("c", 1, c0=(4, 4, 4))
    bench.say("c", Suspect(peer=peer_id("b"), reason=Departure.CRASHED, certain=True))
    bench.fenced("a", 1, c0=(5, 4, 4))
    bench.streams.pop("b")
    bench.join("b", "ac")
    bench.fenced("c", 1, c0=(4, 4, 4))
    assert (bench.members(), bench.install("b").starts) == ("acb", {0: 4})


def test_registering_twice_is_a_breach_of_protocol() -> None:
    bench = Bench()
    bench.register("a")
    bench.register("a")
    assert bench.told[-1].departure is Departure.PROTOCOL


def finish_all(bench: Bench, names: str) -> None:
    for name in names:
        bench.say(name, Leave(reason=Departure.FINISHED))
    for name in names:
        bench.fenced(name, 1)
    for name in names:
        bench.say(name, Installed(epoch=2))


def test_a_complete_job_takes_nobody_in_who_would_begin_it_anew() -> None:
    bench = Bench()
    bench.form("ab")
    bench.say("a", Report(round=3))
    bench.register("late")
    finish_all(bench, "ab")
    assert isinstance(bench.last("late"), StopNotice)
    assert bench.streams["late"] in bench.closed
    again = Bench(snapshot=bench.saved)
    for job in (bench, again):
        job.register("new")
        refused = job.last("new")
        assert isinstance(refused, Refused)
        assert "the job is complete" in refused.message


def test_a_job_that_has_not_trained_is_not_complete() -> None:
    bench = Bench()
    bench.form("ab")
    finish_all(bench, "ab")
    bench.register("new")
    assert isinstance(bench.last("new"), Welcome)
