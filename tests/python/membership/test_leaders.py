"""Several coordinators: whom a peer asks, and what a new leader grants to those it inherits."""

from __future__ import annotations

import pytest
from bench import Bench, peer_id

from atoll.membership.events import Close, Send, decides
from atoll.membership.messages import (
    ChangeKind,
    Departure,
    Endpoint,
    Fence,
    Heartbeat,
    Leave,
    Linked,
    Listening,
    NotLeader,
    Peers,
    Ready,
    Refused,
    Report,
    StopNotice,
    Suspect,
    Welcome,
)
from atoll.membership.peer import SILENT_HEARTBEATS, WELCOME_HEARTBEATS, PeerMachine
from atoll.membership.peer_events import Heard, Reconnect, StreamLost, StreamUp, Tick
from atoll.membership.route import Route

THREE = ("one:1", "two:2", "three:3")


def test_a_route_goes_round() -> None:
    route = Route(THREE)
    assert route.several
    assert [route.current, *(route.failed() for _ in range(3))] == [*THREE, "one:1"]


def test_a_route_follows_what_it_is_told_once() -> None:
    route = Route(THREE)
    assert route.failed("three:3") == "three:3"
    assert route.current == "three:3"
    assert route.failed() == "two:2"  # it was one's turn, then two's
    assert route.failed("elsewhere:9") == "elsewhere:9"
    assert route.failed("elsewhere:9") == "three:3"  # it tells of itself


def test_a_route_of_one_stays_there() -> None:
    route = Route(["one:1"])
    assert not route.several
    assert route.failed() == "one:1"
    assert route.failed("two:2") == "two:2"
    assert route.failed() == "one:1"


def peer(*coordinators: str) -> PeerMachine:
    machine = PeerMachine(
        peer=peer_id("b"),
        island="b",
        job="reef",
        software_version="1",
        coordinators=coordinators or THREE,
    )
    machine.handle(StreamUp(), 0.0)
    return machine


WELCOME = Welcome(order=1, secret=bytes(32), heartbeat_s=1.0, min_islands=1)


def test_a_peer_goes_where_a_standby_sends_it() -> None:
    machine = peer()
    actions = machine.handle(Heard(message=NotLeader(leader="three:3", message="")), 0.0)
    assert actions == [Reconnect(at_s=0.05, coordinator="three:3")]
    assert not machine.connected
    assert machine.handle(StreamLost(), 1.0) == [Reconnect(at_s=1.1, coordinator="two:2")]


def test_a_peer_waits_longer_and_longer_while_nobody_leads_but_not_for_long() -> None:
    machine = peer()
    delays = []
    for _ in range(8):
        (again,) = machine.handle(Heard(message=NotLeader(leader="", message="")), 0.0)
        assert isinstance(again, Reconnect)
        delays.append(again.at_s)
    assert delays == sorted(delays)
    assert delays[-1] == 0.5


@pytest.mark.parametrize("welcomed", [False, True])
def test_one_that_does_not_welcome_is_left_soon(welcomed: bool) -> None:
    """A frozen coordinator accepts connections and says nothing."""
    machine = peer()
    if welcomed:
        machine.handle(Heard(message=WELCOME), 0.0)
    patience_s = float(SILENT_HEARTBEATS if welcomed else WELCOME_HEARTBEATS)
    early = machine.handle(Tick(), patience_s)
    assert not any(isinstance(action, Reconnect) for action in early)
    late = machine.handle(Tick(), patience_s + 0.01)
    assert [a.coordinator for a in late if isinstance(a, Reconnect)] == ["two:2"]


def test_the_only_one_is_given_its_time() -> None:
    machine = peer("one:1")
    assert machine.handle(Tick(), WELCOME_HEARTBEATS + 0.1) == []


# --- the new leader's side ------------------------------------------------------------------------


def inherited(names: str, *, pending: bool = False) -> Bench:
    """A coordinator that begins from what another one has saved; nobody has come back yet."""
    first = Bench()
    first.form(names)
    if pending:
        first.join("z", names)
        assert first.fence(names[0]) is not None
    second = Bench(snapshot=first.saved)
    second.wait(0.05)
    return second


def test_members_have_the_time_to_notice_that_their_coordinator_froze() -> None:
    bench = inherited("ab")
    bench.wait(bench.options.restored_grace_s - 0.2)
    assert bench.members() == "ab"
    assert bench.machine.idle
    assert "left" not in bench.kinds()
    bench.wait(0.5)
    assert bench.kinds().count("left") == 2


def test_the_time_to_come_back_is_longer_than_a_peer_takes_to_notice() -> None:
    options = Bench().options
    notices_s = SILENT_HEARTBEATS * options.heartbeat_s
    asks_two_in_vain_s = 2 * WELCOME_HEARTBEATS * options.heartbeat_s
    assert options.restored_grace_s > notices_s + asks_two_in_vain_s + 2 * 0.5


def test_a_fence_waits_for_those_that_have_not_come_back() -> None:
    bench = inherited("ab", pending=True)
    bench.register("a", installed_epoch=1)
    bench.wait(bench.options.fence_timeout_s - 0.5, beating="a")
    bench.fenced("a", 1)
    bench.wait(1.0, beating="a")
    assert "left" not in bench.kinds()
    bench.register("b", installed_epoch=1)  # b's own time begins only now
    bench.wait(bench.options.fence_timeout_s - 0.5, beating="ab")
    assert "left" not in bench.kinds()
    bench.wait(1.0, beating="ab")
    assert bench.expelled("b").reason is Departure.SILENT


def test_who_comes_back_late_is_lost_only_when_somebody_else_says_so() -> None:
    bench = inherited("abc")
    for name in "ab":
        bench.register(name, installed_epoch=1)
        bench.say(name, Linked(peers=frozenset({peer_id("a"), peer_id("b")} - {peer_id(name)})))
    bench.wait(0.5, beating="ab")
    bench.fenced("a", 1)
    bench.fenced("b", 1)
    assert bench.members() == "ab"


def test_those_that_have_not_come_back_are_still_listed() -> None:
    bench = inherited("abc")
    bench.register("a", installed_epoch=1)
    bench.say("a", Listening(endpoints=(Endpoint(host="h", port=1),)))
    listed = bench.heard_by("a", Peers)[-1]
    assert isinstance(listed, Peers)
    assert [info.island for info in listed.peers] == ["a", "b", "c"]


def test_a_successor_knows_that_the_job_has_trained() -> None:
    """Or it would begin anew when its members finish and somebody comes late."""
    first = Bench()
    first.form("a")
    first.say("a", Report(round=1))
    second = Bench(snapshot=first.saved)
    second.wait(0.05)
    second.register("a", installed_epoch=1)
    second.say("a", Linked(peers=frozenset()), Leave(reason=Departure.FINISHED))
    second.fenced("a", 1)
    second.hang_up("a")
    second.wait(0.2)
    second.register("b")
    refused = second.last("b")
    assert isinstance(refused, Refused)
    assert "the job is complete" in refused.message


def test_a_successor_knows_the_names_of_those_that_are_away() -> None:
    first = Bench()
    first.form("ab")
    first.hang_up("b")
    first.wait(3.0, beating="a")
    second = Bench(snapshot=first.saved)
    assert second.machine.status(0.0).islands == ("a", "b")
    second.wait(0.1)
    for number in range(1_000):
        second.machine._state.remember_island(f"i{number}")
    assert len(second.machine.status(1.0).islands) == 1_000
    assert "b" not in second.machine.status(1.0).islands


def test_no_event_has_the_number_of_another() -> None:
    first = Bench()
    first.form("ab")
    seen = [event.number for event in first.told]
    second = Bench(snapshot=first.saved)
    second.wait(20.0)
    assert second.told
    assert min(event.number for event in second.told) > max(seen)


def test_a_drain_does_not_begin_while_an_abort_waits_for_a_dispute() -> None:
    """It would make the abort forgotten, and its start would count on an op that has lost bytes."""
    bench = Bench()
    bench.form("abc")
    bench.register("d")
    bench.say("d", Listening(endpoints=(Endpoint(host="h", port=1),)))
    bench.link("abcd")
    # b's link with a broke: a and b dispute it, and an abort will follow in any case.
    bench.say("a", Suspect(peer=peer_id("b"), reason=Departure.CRASHED))
    bench.say("d", Ready())
    assert bench.fence("a") is None
    bench.link("abcd")  # it is back: the dispute is over
    bench.wait(0.05)
    fence = bench.fence("a")
    assert isinstance(fence, Fence)
    assert fence.kind is ChangeKind.ABORT


def test_what_a_peer_acts_on_for_good_is_confirmed() -> None:
    for message in (
        WELCOME,
        Fence(attempt=1, kind=ChangeKind.ABORT),
        Refused(message=""),
        StopNotice(message=""),
    ):
        assert decides(Send(stream=1, message=message))
    for harmless in (Heartbeat(), Peers(peers=(), holders=frozenset())):
        assert not decides(Send(stream=1, message=harmless))
    assert not decides(Close(stream=1))
