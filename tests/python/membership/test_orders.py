"""What an operator orders for one island: the coordinator's part, then the island's."""

from __future__ import annotations

from bench import Bench, peer_id

from atoll import errors
from atoll.membership.events import DrainRequested, KillRequested, StopRequested
from atoll.membership.messages import (
    ChangeKind,
    Departure,
    DrainNotice,
    Endpoint,
    Expelled,
    Fence,
    Install,
    Installed,
    Leave,
    PeerInfo,
    View,
    Welcome,
)
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    AppDrain,
    AppLeave,
    Ended,
    EngineInstalled,
    EngineStarted,
    Heard,
    PeerAction,
    PeerEvent,
    Say,
    StreamUp,
    Tick,
)


def test_a_drain_is_told_to_the_island_and_changes_no_view_by_itself() -> None:
    bench = Bench()
    bench.form("abc")
    bench.drive(DrainRequested(island="b", message="its disk is full"))
    assert bench.last("b") == DrainNotice(message="its disk is full")
    assert not bench.heard_by("a", Fence)
    (told,) = [event for event in bench.told if event.kind == "draining"]
    assert (told.island, told.message) == ("b", "b is to leave: its disk is full")
    states = {p.info.island: p.state for p in bench.machine.status(bench.now_s).peers}
    assert states == {"a": "member", "b": "draining", "c": "member"}
    bench.drive(DrainRequested(island="b", message="its disk is full"))
    assert bench.kinds().count("draining") == 1


def test_a_drain_is_told_again_on_a_new_stream() -> None:
    bench = Bench()
    bench.form("ab")
    bench.hang_up("b")
    bench.drive(DrainRequested(island="b", message="now"))
    bench.register("b", installed_epoch=1)
    assert bench.heard_by("b", DrainNotice) == [DrainNotice(message="now")]


def test_a_kill_expels_at_once_and_the_status_says_why() -> None:
    bench = Bench()
    bench.form("abc")
    bench.drive(KillRequested(island="b", message="an operator has put it out"))
    assert bench.expelled("b") == Expelled(
        reason=Departure.KILLED, message="an operator has put it out"
    )
    for name in "ac":
        bench.fenced(name, 1)
    assert bench.members() == "ac"
    bench.wait(1.0, beating="ac")
    end = bench.machine.status(bench.now_s).departed["b"]
    assert (end.reason, end.message) == (Departure.KILLED, "an operator has put it out")


def test_why_an_island_was_drained_is_known_when_it_has_left() -> None:
    bench = Bench()
    bench.form("abc")
    bench.drive(DrainRequested(island="b", message="its disk is full"))
    bench.say("b", Leave(reason=Departure.DRAINED))
    bench.wait(0.2, beating="abc")
    for name in "abc":
        bench.fenced(name, 1)
    for name in "abc":
        bench.say(name, Installed(epoch=2))
    bench.wait(0.2, beating="ac")
    end = bench.machine.status(bench.now_s).departed["b"]
    assert (end.reason, end.message) == (
        Departure.DRAINED,
        "it left in good order, as it was asked to: its disk is full",
    )


def test_a_member_of_a_job_that_is_stopped_left_for_that() -> None:
    bench = Bench()
    bench.form("ab")
    bench.drive(StopRequested(message="stopped by the user"))
    bench.say("a", Leave(reason=Departure.STOPPED))
    assert bench.machine.status(bench.now_s).departed["a"].message == "stopped by the user"


def test_orders_for_nobody_do_nothing() -> None:
    bench = Bench()
    bench.form("ab")
    told = list(bench.told)
    bench.drive(DrainRequested(island="x", message=""))
    bench.drive(KillRequested(island="x", message=""))
    assert bench.told == told


# --- the island -----------------------------------------------------------------------------------

ME, OTHER = peer_id("b"), peer_id("a")
HERE = Endpoint(host="h", port=9)


class Island:
    """The peer of island b, with 20 s to leave."""

    def __init__(self) -> None:
        self.machine = PeerMachine(
            peer=ME, island="b", job="reef", software_version="1", leave_s=20.0
        )
        self.now_s = 0.0
        self.feed(StreamUp())
        welcome = Welcome(order=2, secret=b"s" * 32, heartbeat_s=1e6, min_islands=1)
        self.feed(Heard(message=welcome), EngineStarted(endpoints=(HERE,)))

    def feed(self, *events: PeerEvent) -> list[PeerAction]:
        return [a for event in events for a in self.machine.handle(event, self.now_s)]

    def install(self, epoch: int, *ids: bytes) -> list[PeerAction]:
        members = tuple(
            PeerInfo(id=one, island=one[:1].decode(), order=n, endpoints=(HERE,))
            for n, one in enumerate(ids)
        )
        view = View(epoch=epoch, members=members)
        self.feed(Heard(message=Install(view=view, kind=ChangeKind.DRAIN)))
        return self.feed(EngineInstalled(epoch=epoch, member=ME in ids))

    def at(self, now_s: float) -> list[PeerAction]:
        self.now_s = now_s
        return self.feed(Tick())


def leaves(actions: list[PeerAction]) -> bool:
    return Say(message=Leave(reason=Departure.DRAINED)) in actions


def test_a_drained_island_goes_on_until_its_program_leaves() -> None:
    island = Island()
    island.install(1, OTHER, ME)
    assert not leaves(island.feed(Heard(message=DrainNotice(message="its disk is full"))))
    assert island.machine.draining == "its disk is full"
    assert not leaves(island.at(14.9))
    assert leaves(island.feed(AppLeave(reason=Departure.DRAINED)))
    (ended,) = [a for a in island.install(2, OTHER) if isinstance(a, Ended)]
    assert isinstance(ended.error, errors.SessionClosed)
    assert "its disk is full" in str(ended.error)
    assert island.machine.left


def test_it_leaves_by_itself_when_three_quarters_of_its_time_are_over() -> None:
    island = Island()
    island.install(1, OTHER, ME)
    island.feed(AppDrain(message="SIGTERM"))
    assert not leaves(island.at(14.9))
    assert leaves(island.at(15.0))
    assert not [a for a in island.at(17.9) if isinstance(a, Ended)]
    (ended,) = [a for a in island.at(18.0) if isinstance(a, Ended)]  # nobody has agreed
    assert "SIGTERM" in str(ended.error)


def test_one_that_is_in_no_view_leaves_at_once() -> None:
    island = Island()
    actions = island.feed(AppDrain(message="SIGTERM"))
    assert leaves(actions)
    assert any(isinstance(a, Ended) for a in actions)
