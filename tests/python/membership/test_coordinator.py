"""The coordinator's machine, rule by rule: no socket, no clock, no thread."""

from __future__ import annotations

from bench import Bench, peer_id

from atoll.membership.events import StopRequested
from atoll.membership.messages import (
    ChangeKind,
    Counters,
    Departure,
    Fence,
    Fenced,
    Heartbeat,
    Holding,
    Install,
    Installed,
    Leave,
    Linked,
    Peers,
    Refused,
    Register,
    StopNotice,
    Suspect,
)

# --- the first view -------------------------------------------------------------------------------


def test_the_first_view_waits_for_enough_islands() -> None:
    bench = Bench(min_islands=3)
    bench.join("a", "")
    bench.join("b", "a")
    bench.wait(3.0, beating="ab")
    assert bench.machine.view.epoch == 0
    bench.join("c", "ab")
    bench.wait(0.3, beating="abc")
    install = bench.install("c")
    assert (install.view.epoch, install.kind, install.starts) == (1, ChangeKind.ABORT, {})
    assert install.holders == {peer_id("a")}
    assert "state_lost" not in bench.kinds()


def test_the_first_view_waits_a_moment_for_those_that_are_about_to_come() -> None:
    bench = Bench()
    bench.join("a", "")
    bench.register("b")
    bench.wait(1.0, beating="ab")
    assert bench.machine.view.epoch == 0
    bench.wait(1.5, beating="ab")
    assert bench.members() == "a"


def test_unlinked_islands_do_not_form_a_view() -> None:
    bench = Bench(min_islands=2)
    bench.join("a", "")
    bench.join("b", "")
    bench.wait(3.0, beating="ab")
    assert bench.machine.view.epoch == 0


# --- drains ---------------------------------------------------------------------------------------


def test_a_joiner_comes_in_by_a_drain() -> None:
    bench = Bench()
    bench.form("ab")
    bench.join("c", "ab")
    assert bench.fence("a") == Fence(attempt=1, kind=ChangeKind.DRAIN)
    assert not bench.heard_by("c", Fence)
    bench.fenced("a", 1, c0=(4, 4, 4))
    bench.fenced("b", 1, c0=(4, 4, 4))
    install = bench.install("c")
    assert (install.kind, dict(install.starts)) == (ChangeKind.DRAIN, {0: 4})
    assert bench.members() == "abc"


def test_a_joiner_installs_only_when_nobody_can_be_short_of_an_op_before_its_start() -> None:
    bench = Bench()
    bench.form("ab")
    bench.join("c", "ab")
    bench.fenced("a", 1, c0=(5, 4, 4))
    bench.fenced("b", 1, c0=(4, 4, 4))
    assert bench.install("a").starts == {0: 5}
    assert not bench.heard_by("c", Install)
    bench.say("b", Installed(epoch=2))
    assert bench.install("c").starts == {0: 5}


def test_a_joiner_that_is_not_linked_with_all_waits_and_is_told_in_the_end() -> None:
    bench = Bench()
    bench.form("ab")
    bench.join("c", "")
    bench.say("c", Linked(peers=frozenset({peer_id("a")})))
    bench.say("a", Linked(peers=frozenset({peer_id("b"), peer_id("c")})))
    bench.wait(10.0, beating="abc")
    assert not bench.heard_by("a", Fence)
    bench.wait(55.0, beating="abc")
    assert bench.expelled("c").reason is Departure.UNREACHABLE


def test_a_drain_waits_until_all_have_installed_the_view_before_it() -> None:
    bench = Bench()
    bench.form("ab")
    bench.join("c", "ab")
    bench.fenced("a", 1)
    bench.fenced("b", 1)
    bench.join("d", "abc")
    bench.say("a", Installed(epoch=2))
    bench.say("c", Installed(epoch=2))
    assert len(bench.heard_by("a", Fence)) == 1
    bench.say("b", Installed(epoch=2))
    assert len(bench.heard_by("a", Fence)) == 2


def test_the_last_holder_leaves_by_an_abort_when_others_could_not_start_what_it_has() -> None:
    bench = Bench()
    bench.form("ab")
    bench.say("a", Leave(reason=Departure.FINISHED))
    bench.fenced("a", 1, c0=(1, 1, 0))
    bench.fenced("b", 1)
    assert bench.fence("b") == Fence(attempt=2, kind=ChangeKind.ABORT)
    bench.fenced("a", 1, c0=(1, 1, 0))
    bench.fenced("b", 1)
    install = bench.install("b")
    assert (install.starts.get(0, 0), install.holders) == (0, {peer_id("b")})


def test_a_leaver_finishes_and_is_gone_in_good_order() -> None:
    bench = Bench()
    bench.form("ab")
    bench.say("b", Leave(reason=Departure.DRAINED))
    bench.fenced("a", 1, c0=(3, 2, 2))
    bench.fenced("b", 1, c0=(3, 2, 2))
    install = bench.install("b")
    assert (install.kind, install.view.ids) == (ChangeKind.DRAIN, (peer_id("a"),))
    bench.say("b", Installed(epoch=2))
    assert (bench.told[-1].kind, bench.told[-1].departure) == ("left", Departure.DRAINED)
    bench.say("b", Heartbeat())  # what it still says is not heard
    assert bench.streams["b"] not in bench.closed


def test_a_leaver_that_has_not_started_what_others_wait_in_is_left_by_an_abort() -> None:
    bench = Bench()
    bench.form("ab")
    bench.say("b", Leave(reason=Departure.DRAINED))
    bench.fenced("a", 1, c0=(3, 2, 2))
    bench.fenced("b", 1, c0=(2, 2, 2))
    assert bench.fence("a") == Fence(attempt=2, kind=ChangeKind.ABORT)
    bench.fenced("a", 1, c0=(3, 2, 2))
    bench.fenced("b", 1, c0=(2, 2, 2))
    install = bench.install("b")
    assert (install.kind, install.view.ids, install.starts) == (
        ChangeKind.ABORT,
        (peer_id("a"),),
        {0: 2},
    )


def test_a_leaver_whose_stream_ends_is_not_waited_for() -> None:
    bench = Bench()
    bench.form("ab")
    bench.say("b", Leave(reason=Departure.FINISHED))
    bench.hang_up("b")
    bench.fenced("a", 1)
    assert bench.members() == "a"
    assert bench.told[-1].kind == "view"


def test_all_leave_at_once_and_the_line_of_views_goes_on() -> None:
    bench = Bench()
    bench.form("ab")
    bench.say("a", Leave(reason=Departure.FINISHED))
    bench.say("b", Leave(reason=Departure.FINISHED))
    bench.fenced("a", 1)
    bench.fenced("b", 1)
    bench.say("a", Installed(epoch=2))
    bench.say("b", Installed(epoch=2))
    assert (bench.machine.view.epoch, bench.members()) == (2, "")
    bench.hang_up("a")
    bench.hang_up("b")
    bench.join("c", "")
    bench.wait(0.3, beating="c")
    assert (bench.machine.view.epoch, bench.members()) == (3, "c")
    assert bench.kinds()[-1] == "state_lost"


# --- losses ---------------------------------------------------------------------------------------


def test_a_broken_stream_and_a_suspicion_are_proof_at_once() -> None:
    bench = Bench()
    bench.form("abc")
    bench.hang_up("c")
    bench.say("a", Suspect(peer=peer_id("c"), reason=Departure.CRASHED, message="reset"))
    assert bench.fence("a") == Fence(attempt=1, kind=ChangeKind.ABORT)
    bench.fenced("a", 1, c0=(3, 3, 2))
    bench.fenced("b", 1, c0=(3, 2, 2))
    install = bench.install("b")
    assert (install.kind, install.starts) == (ChangeKind.ABORT, {0: 2})
    assert bench.members() == "ab"


def test_a_death_that_the_kernel_tells_of_is_proof_at_once() -> None:
    bench = Bench()
    bench.form("abc")
    bench.say("a", Suspect(peer=peer_id("c"), reason=Departure.CRASHED, certain=True))
    assert bench.fence("a") == Fence(attempt=1, kind=ChangeKind.ABORT)
    bench.fenced("a", 1, c0=(3, 3, 2))
    bench.fenced("b", 1, c0=(3, 2, 2))
    assert bench.members() == "ab"


def test_a_broken_stream_alone_is_given_time() -> None:
    bench = Bench()
    bench.form("ab")
    bench.hang_up("b")
    bench.wait(1.9, beating="a")
    assert not bench.heard_by("a", Fence)
    bench.wait(0.2, beating="a")
    assert bench.heard_by("a", Fence)


def test_a_suspicion_alone_waits_for_more_and_the_larger_side_stays() -> None:
    bench = Bench()
    bench.form("abc")
    bench.say("b", Suspect(peer=peer_id("a"), reason=Departure.SILENT))
    bench.wait(0.2, beating="abc")
    bench.say("c", Suspect(peer=peer_id("a"), reason=Departure.SILENT))
    bench.wait(0.1, beating="abc")
    assert bench.expelled("a").reason is Departure.UNREACHABLE
    assert bench.fence("b") == Fence(attempt=1, kind=ChangeKind.ABORT)


def test_of_two_the_older_stays() -> None:
    bench = Bench()
    bench.form("ab")
    bench.say("b", Suspect(peer=peer_id("a"), reason=Departure.SILENT))
    bench.wait(0.3, beating="ab")
    assert bench.expelled("b").reason is Departure.UNREACHABLE


def test_of_two_the_one_that_the_coordinator_hears_stays() -> None:
    bench = Bench()
    bench.form("ab")
    bench.wait(4.0, beating="b")
    bench.say("b", Suspect(peer=peer_id("a"), reason=Departure.SILENT))
    assert bench.expelled("a").reason is Departure.SILENT
    assert bench.fence("b") == Fence(attempt=1, kind=ChangeKind.ABORT)


def test_a_link_that_comes_back_expels_nobody_but_what_it_lost_runs_again() -> None:
    bench = Bench()
    bench.form("ab")
    bench.say("a", Suspect(peer=peer_id("b"), reason=Departure.CRASHED))
    bench.wait(0.1, beating="ab")
    bench.link("ab")
    bench.fenced("a", 1, c0=(3, 2, 2))
    bench.fenced("b", 1, c0=(3, 2, 2))
    assert (bench.machine.view.epoch, bench.members()) == (2, "ab")
    assert bench.install("a").starts == {0: 2}


def test_a_member_without_heartbeats_is_silent() -> None:
    bench = Bench()
    bench.form("ab")
    bench.wait(10.5, beating="a")
    assert bench.told[-1].departure is Departure.SILENT
    assert bench.heard_by("a", Fence)


def test_a_member_that_does_not_answer_a_fence_is_silent_and_the_fence_begins_again() -> None:
    bench = Bench()
    bench.form("abc")
    bench.hang_up("c")
    bench.say("a", Suspect(peer=peer_id("c"), reason=Departure.CRASHED))
    bench.fenced("a", 1, c0=(3, 3, 2))
    bench.wait(5.1, beating="ab")
    assert bench.told[-1].departure is Departure.SILENT
    assert bench.fence("a") == Fence(attempt=2, kind=ChangeKind.ABORT)
    bench.fenced("a", 1, c0=(3, 3, 2))
    assert bench.members() == "a"


def test_an_abort_supersedes_a_drain_and_late_answers_do_not_count() -> None:
    bench = Bench()
    bench.form("abc")
    bench.join("d", "abc")
    assert bench.fence("a") == Fence(attempt=1, kind=ChangeKind.DRAIN)
    bench.hang_up("c")
    late = bench.fence("b")
    assert late is not None
    bench.say("a", Suspect(peer=peer_id("c"), reason=Departure.CRASHED))
    bench.fenced("a", 1, c0=(5, 4, 4))
    progress = {0: Counters(started=4, done=3, committed=3)}
    bench.say("b", Fenced(attempt=late.attempt, epoch=1, progress=progress))
    assert bench.machine.view.epoch == 1
    bench.fenced("b", 1, c0=(5, 4, 4))
    assert (bench.members(), bench.install("a").starts) == ("ab", {0: 4})


def test_a_pause_of_the_coordinator_itself_is_nobodys_fault() -> None:
    bench = Bench()
    bench.form("ab")
    bench.now_s += 60.0
    bench.wait(0.1, beating="ab")
    bench.wait(1.0, beating="ab")
    assert bench.members() == "ab"
    assert "left" not in bench.kinds()


# --- state, restart, reports ----------------------------------------------------------------------


def test_holders_are_those_that_say_so_and_losing_all_of_them_is_told() -> None:
    bench = Bench()
    bench.form("abc")
    bench.say("b", Holding())
    peers = bench.heard_by("c", Peers)[-1]
    assert isinstance(peers, Peers)
    assert peers.holders == {peer_id("a"), peer_id("b")}
    for name, accuser, rest in (("a", "b", "bc"), ("b", "c", "c")):
        bench.hang_up(name)
        bench.say(accuser, Suspect(peer=peer_id(name), reason=Departure.CRASHED))
        for other in rest:
            bench.fenced(other, bench.machine.view.epoch)
        for other in rest:
            bench.say(other, Installed(epoch=bench.machine.view.epoch))
        assert ("state_lost" in bench.kinds()) == (name == "b")
    assert bench.install("c").holders == {peer_id("c")}


def test_what_was_fetched_before_the_state_was_lost_does_not_count() -> None:
    bench = Bench()
    bench.form("abc")
    bench.hang_up("a")
    bench.say("b", Suspect(peer=peer_id("a"), reason=Departure.CRASHED))
    for name in "bc":
        bench.fenced(name, 1)
    assert bench.install("c").holders == {peer_id("b")}
    bench.say("c", Holding())  # of view 1: the news of view 2 is still under way
    bench.say("c", Installed(epoch=2))
    assert bench.machine.holders == {peer_id("b")}
    bench.say("c", Holding())
    assert bench.machine.holders == {peer_id("b"), peer_id("c")}


def test_a_restarted_coordinator_goes_on_with_those_that_come_back() -> None:
    first = Bench()
    first.form("abc")
    second = Bench(snapshot=first.saved)
    second.wait(0.1)
    for name in "ab":
        second.register(name, installed_epoch=1)
    second.link("ab")
    second.wait(2.0, beating="ab")
    assert second.heard_by("a", Fence)
    second.fenced("a", 1, c0=(2, 2, 2))
    second.fenced("b", 1, c0=(2, 2, 2))
    assert (second.machine.view.epoch, second.members()) == (2, "ab")
    assert second.install("a").holders == {peer_id("a")}


def test_a_coordinator_that_was_restarted_in_a_change_begins_it_again() -> None:
    first = Bench()
    first.form("ab")
    first.say("b", Suspect(peer=peer_id("a"), reason=Departure.CRASHED))
    first.link("ab")
    assert first.fence("a") == Fence(attempt=1, kind=ChangeKind.ABORT)
    second = Bench(snapshot=first.saved)
    for name in "ab":
        second.register(name, installed_epoch=1)
    assert second.fence("a") == Fence(attempt=2, kind=ChangeKind.ABORT)


def test_who_comes_back_too_late_is_told_what_happened() -> None:
    bench = Bench()
    bench.form("ab")
    bench.hang_up("b")
    bench.wait(2.1, beating="a")
    bench.register("b", installed_epoch=1)
    assert bench.expelled("b").reason is Departure.CRASHED


def test_events_are_numbered_and_can_be_asked_for() -> None:
    bench = Bench()
    bench.form("ab")
    assert [event.number for event in bench.machine.events(1)] == [2, 3]


def test_a_stop_asks_everybody_to_leave_and_refuses_newcomers() -> None:
    bench = Bench()
    bench.form("ab")
    bench.drive(StopRequested(message="enough"))
    assert bench.last("a") == StopNotice(message="enough")
    bench.hang_up("a")
    assert not bench.heard_by("b", Fence)
    bench.say("c", Register(software_version="1", job="reef", peer=peer_id("c"), island="c"))
    assert isinstance(bench.last("c"), Refused)
    assert bench.told[-1].departure is Departure.STOPPED
