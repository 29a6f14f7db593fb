"""Members that freeze unasked, as the coordinator sees them."""

from __future__ import annotations

from bench import Bench, peer_id

from atoll.membership.messages import (
    UNASKED,
    ChangeKind,
    Counters,
    Departure,
    Fence,
    Fenced,
    Installed,
    Leave,
    Suspect,
)


def test_who_froze_unasked_has_answered_already() -> None:
    bench = Bench()
    bench.form("abc")
    for name in "ab":
        bench.say(name, Suspect(peer=peer_id("c"), reason=Departure.CRASHED, certain=True))
    bench.fenced("a", 1, unasked=True, c0=(3, 3, 2))
    bench.fenced("b", 1, unasked=True, c0=(3, 2, 2))
    assert bench.install("b").starts == {0: 2}
    assert bench.members() == "ab"
    bench.fenced("a", 1, c0=(3, 3, 2))  # the fence that had been sent meanwhile
    assert bench.machine.view.epoch == 2


def test_who_tells_of_a_death_and_how_far_it_has_come_is_not_asked() -> None:
    bench = Bench()
    bench.form("abc")
    death = Suspect(peer=peer_id("c"), reason=Departure.CRASHED, certain=True)
    progress = {0: Counters(started=3, done=2, committed=2)}
    frozen = Fenced(attempt=UNASKED, epoch=1, progress=progress)
    bench.say_in_one_breath("a", death, frozen)
    assert bench.fence("a") is None
    assert bench.fence("b") == Fence(attempt=1, kind=ChangeKind.ABORT)
    bench.say_in_one_breath("b", death, frozen)
    assert bench.members() == "ab"
    assert bench.install("a").starts == {0: 2}


def test_who_froze_unasked_in_the_view_before_is_asked() -> None:
    bench = Bench()
    bench.form("abcd")
    frozen = Fenced(attempt=UNASKED, epoch=1, progress={})
    for name in "abc":
        death = Suspect(peer=peer_id("d"), reason=Departure.CRASHED, certain=True)
        bench.say_in_one_breath(name, death, frozen)
    for name in "abc":
        bench.say(name, Installed(epoch=2))
    bench.say("a", Suspect(peer=peer_id("c"), reason=Departure.CRASHED, certain=True))
    assert bench.fence("a") == bench.fence("b") == Fence(attempt=2, kind=ChangeKind.ABORT)


def test_who_froze_unasked_is_asked_while_a_view_is_under_way_to_it() -> None:
    bench = Bench()
    bench.form("abc")
    bench.say("b", Leave(reason=Departure.FINISHED))
    for name in "abc":
        bench.fenced(name, 1, c0=(3, 3, 3))
    assert bench.members() == "ac"
    bench.say("a", Suspect(peer=peer_id("c"), reason=Departure.CRASHED, certain=True))
    bench.fenced("a", 1, unasked=True, c0=(3, 3, 3))  # it may have installed view 2 since
    bench.fenced("b", 1, c0=(3, 3, 3))
    assert bench.machine.view.epoch == 2
    bench.fenced("a", 2, c0=(4, 3, 3))
    assert bench.members() == "a"
