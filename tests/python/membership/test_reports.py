"""What peers report: rounds, differences, notices, and what people are told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bench import Bench

from atoll.membership.messages import Installed, Report


def test_members_that_differ_after_a_round_are_named() -> None:
    bench = Bench()
    bench.form("abc")
    bench.say("a", Report(round=1, loss=2.0, digest="aa"))
    bench.say("b", Report(round=1, loss=4.0, digest="aa"))
    assert bench.machine.status(bench.now_s).parity_failures == 0
    bench.say("c", Report(round=1, loss=3.0, digest="bb"))
    status = bench.machine.status(bench.now_s)
    assert (status.parity_failures, status.round, status.loss) == (1, 1, 3.0)
    parity = next(event for event in bench.told if event.kind == "parity")
    assert "aa: a, b / bb: c" in parity.message


def test_what_a_peer_has_to_say_is_told_once() -> None:
    bench = Bench()
    bench.form("ab")
    failed = Report(round=3, notice_number=1, notice_kind="checkpoint_failed", notice="disk full")
    bench.say("a", failed, failed, replace(failed, round=4))
    bench.say("a", replace(failed, notice_number=2, notice_kind="restored", notice="from there"))
    bench.say("b", replace(failed, notice_kind="view", notice="not a peer's to tell"))
    told = [e for e in bench.told if e.kind in ("checkpoint_failed", "restored")]
    assert [(e.kind, e.message, e.island, e.round) for e in told] == [
        ("checkpoint_failed", "disk full", "a", 3),
        ("restored", "from there", "a", 3),
    ]
    assert all("not a peer's" not in event.message for event in bench.told)


def test_the_round_that_a_restarted_job_begins_from_is_not_told_again() -> None:
    bench = Bench()
    bench.form("ab")
    for name in "ab":
        bench.say(name, Report(round=7, phase="training"))
    assert bench.machine.status(bench.now_s).round == 7
    for name in "ab":
        bench.say(name, Report(round=8, digest="aa", loss=1.0))
    assert [event.round for event in bench.told if event.kind == "round"] == [8]


def test_rounds_that_come_again_after_the_state_was_lost() -> None:
    """They may end otherwise than the first time, and they count."""
    bench = Bench()
    bench.form("a")
    bench.say("a", *(Report(round=number, digest=f"a{number}") for number in range(1, 6)))
    bench.hang_up("a")
    bench.join("b", "")
    bench.wait(2.5, beating="b")
    bench.say("b", Installed(epoch=bench.machine.view.epoch))
    assert "state_lost" in bench.kinds()
    for number in (3, 4, 5):
        bench.say("b", Report(round=number, digest=f"b{number}", loss=1.0))
        assert bench.machine.status(bench.now_s).round == number
    assert bench.machine.status(bench.now_s).parity_failures == 0
    assert "parity" not in bench.kinds()


@pytest.mark.parametrize("said", [{"loss": 2.0}, {"contributed": True}, {"digest": "aa"}])
def test_a_round_is_told_whatever_it_is_known_by(said: dict[str, Any]) -> None:
    """A program without a method has no digest to report."""
    bench = Bench()
    bench.form("ab")
    for name in "ab":
        bench.say(name, Report(round=1, **said))
    assert [event.round for event in bench.told if event.kind == "round"] == [1]
