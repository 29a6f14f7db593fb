"""Measuring links: when the coordinator has it done, what it tells, and what a peer does."""

from __future__ import annotations

import pytest
from bench import Bench, peer_id

from atoll import _core
from atoll.membership.measuring import FILLER_S, PATIENCE_S
from atoll.membership.messages import (
    ChangeKind,
    Endpoint,
    Fence,
    Install,
    Installed,
    Leave,
    LinkFigures,
    Links,
    Measure,
    MeasureRequest,
    PeerInfo,
    PeerMessage,
    Peers,
    View,
    Welcome,
)
from atoll.membership.messages import Departure as Why
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    AppArrived,
    AppMeasure,
    EngineInstalled,
    EngineProbed,
    EngineStarted,
    Heard,
    InstallEngine,
    LinkDown,
    LinkUp,
    PeerAction,
    PeerEvent,
    Probe,
    Say,
    StreamLost,
    StreamUp,
    Tick,
)
from atoll.store.encode import from_json, to_json

A, B, C = peer_id("a"), peer_id("b"), peer_id("c")


def link(rate_bytes_per_s: float, rtt_s: float = 0.02) -> LinkFigures:
    return LinkFigures(rate_bytes_per_s=rate_bytes_per_s, rtt_s=rtt_s)


# --- the coordinator ------------------------------------------------------------------------------


def measures(bench: Bench, name: str) -> list[Measure]:
    return bench.heard_by(name, Measure)  # type: ignore[return-value]


def answer(bench: Bench, names: str, rate: float = 1e7) -> None:
    """Every member of `names` says its row."""
    for name in names:
        number = measures(bench, name)[-1].number
        figures = {peer_id(other): link(rate) for other in names if other != name}
        bench.say(name, Links(number=number, figures=figures))


def install_all(bench: Bench, names: str) -> Install:
    """Members answer a fence and install what comes."""
    epoch = bench.machine.view.epoch
    for name in names:
        bench.fenced(name, epoch, c0=(4, 4, 4))
    install = bench.install(names[0])
    for name in names:
        assert bench.install(name) == install
        bench.say(name, Installed(epoch=install.view.epoch))
    return install


def measured(names: str = "ab", **options: object) -> Bench:
    """Members in view 2, which tells of their links."""
    bench = Bench(**options)
    bench.form(names)
    bench.wait(1.1, beating=names)
    answer(bench, names)
    install_all(bench, names)
    return bench


def test_members_measure_once_the_first_view_has_settled() -> None:
    bench = Bench()
    bench.form("abc")
    assert not measures(bench, "a")
    bench.wait(1.1, beating="abc")
    (message,) = measures(bench, "a")
    assert (message.epoch, message.fresh) == (1, {A, B, C})
    assert message.burst_s <= 0.1
    assert message.slot_s == 1.0
    assert measures(bench, "b") == measures(bench, "c") == [message]


def test_a_line_is_not_busy_for_long_however_many_there_are() -> None:
    bench = Bench()
    names = "abcdefghijklmnopqrst"
    bench.form(names)
    bench.wait(1.1, beating=names)
    (message,) = measures(bench, "a")
    assert message.burst_s * (len(names) - 1) <= FILLER_S * 1.001
    assert 0.25 <= message.slot_s < 0.5


def test_a_drain_without_any_change_of_members_tells_them() -> None:
    bench = Bench()
    bench.form("ab")
    assert bench.install("a").topology == b""
    bench.wait(1.1, beating="ab")
    bench.say("a", Links(number=1, figures={B: link(3e7, 0.02)}))
    assert bench.fence("a") is None  # the other row is still to come
    bench.say("b", Links(number=1, figures={A: link(1e7, 0.03)}))
    assert bench.fence("a") == Fence(attempt=1, kind=ChangeKind.DRAIN)
    install = install_all(bench, "ab")
    assert (install.kind, install.view.ids) == (ChangeKind.DRAIN, (A, B))
    assert install.starts == {0: 4}
    topology = _core.Topology(install.topology)
    assert topology.link(0, 1) == pytest.approx((3e7, 0.02))
    assert topology.link(1, 0) == pytest.approx((1e7, 0.03))
    assert bench.machine.status(bench.now_s).view_changes == {"formed": 1, "links": 1}
    bench.wait(40.0, beating="ab")
    assert bench.machine.view.epoch == 2  # and that is all
    assert len(measures(bench, "a")) == 1


def test_who_never_answers_is_not_waited_for() -> None:
    bench = Bench()
    bench.form("ab")
    bench.wait(1.1, beating="ab")
    bench.say("a", Links(number=1, figures={B: link(3e7)}))
    bench.wait(PATIENCE_S + 1.5, beating="ab")
    assert bench.fence("a") is not None
    assert _core.Topology(install_all(bench, "ab").topology).link(1, 0)[0] == 3e7
    bench.wait(40.0, beating="ab")
    assert len(measures(bench, "a")) == 1  # tried is tried


def test_without_any_figures_nothing_happens() -> None:
    bench = Bench()
    bench.form("ab")
    bench.wait(1.1, beating="ab")
    for name in "ab":
        bench.say(name, Links(number=1, figures={}))
    bench.wait(40.0, beating="ab")
    assert bench.machine.view.epoch == 1
    assert len(measures(bench, "a")) == 1


def test_a_joiner_keeps_what_is_known_and_only_its_own_links_are_measured() -> None:
    bench = measured("ab")
    bench.join("c", "ab")
    install = install_all(bench, "abc"[:2])
    bench.say("c", Installed(epoch=3))
    topology = _core.Topology(install.topology)
    assert (topology.members, topology.link(0, 1)[0]) == (3, 1e7)
    assert topology.link(2, 0)[0] == 1e7  # like the others, until it is measured
    bench.wait(1.1, beating="abc")
    message = measures(bench, "c")[-1]
    assert (message.epoch, message.fresh, message.number) == (3, {C}, 2)
    bench.say("c", Links(number=2, figures={A: link(1e6), B: link(1e6)}))
    bench.say("a", Links(number=2, figures={B: link(1e7), C: link(1e6)}))
    bench.say("b", Links(number=2, figures={A: link(1e7), C: link(1e6)}))
    assert bench.machine.view.epoch == 3  # the last such view was a moment ago
    bench.wait(11.0, beating="abc")
    assert _core.Topology(install_all(bench, "abc").topology).link(2, 0)[0] == 1e6


def test_survivors_keep_what_is_known() -> None:
    bench = measured("abc")
    bench.say("c", Leave(reason=Why.FINISHED))
    install = install_all(bench, "abc"[:2] + "c")
    assert install.view.ids == (A, B)
    assert _core.Topology(install.topology).link(0, 1)[0] == 1e7


def test_small_differences_are_no_news_and_large_ones_are_after_a_while() -> None:
    bench = measured("ab")
    bench.say("a", MeasureRequest())
    bench.wait(1.0, beating="ab")
    assert len(measures(bench, "a")) == 1  # not so soon again
    bench.wait(30.0, beating="ab")
    assert measures(bench, "a")[-1].fresh == {A, B}
    answer(bench, "ab", rate=1.2e7)
    bench.wait(40.0, beating="ab")
    assert bench.machine.view.epoch == 2
    bench.say("b", MeasureRequest())
    bench.wait(1.0, beating="ab")
    answer(bench, "ab", rate=2e7)
    assert _core.Topology(install_all(bench, "ab").topology).link(0, 1)[0] == 2e7


def test_a_change_of_view_ends_a_measurement_and_the_next_view_begins_another() -> None:
    bench = Bench()
    bench.form("ab")
    bench.wait(1.1, beating="ab")
    bench.join("c", "ab")
    install_all(bench, "ab")
    bench.say("c", Installed(epoch=2))
    bench.say("a", Links(number=1, figures={B: link(1e7)}))  # late, but true
    bench.wait(1.1, beating="abc")
    message = measures(bench, "a")[-1]
    assert (message.number, message.epoch, message.fresh) == (2, 2, {B, C})


def test_a_coordinator_that_comes_back_tells_the_same_of_a_view() -> None:
    bench = Bench()
    bench.form("ab")
    bench.wait(1.1, beating="ab")
    answer(bench, "ab")
    for name in "ab":
        bench.fenced(name, 1)
    install = bench.install("a")
    assert install.topology
    assert bench.saved is not None
    other = Bench(snapshot=from_json(to_json(bench.saved)))
    assert other.machine._state.newest.ring(0).topology == install.topology


# --- a peer ---------------------------------------------------------------------------------------


class Member:
    """A machine in view 4 of a, b, c; it is `name`."""

    def __init__(self, name: str, *, probes: bool = True) -> None:
        self.machine = PeerMachine(
            peer=peer_id(name), island=name, job="reef", software_version="1", probes=probes
        )
        self.now_s = 100.0
        self.drive(StreamUp())
        self.drive(Heard(message=Welcome(order=1, secret=b"s" * 32, heartbeat_s=1, min_islands=1)))
        self.drive(EngineStarted(endpoints=(Endpoint(host="h", port=9),)))
        self.infos = tuple(
            PeerInfo(id=peer, island="i", order=order, endpoints=())
            for order, peer in enumerate((A, B, C))
        )
        self.drive(Heard(message=Peers(peers=self.infos)))
        for other in (A, B, C):
            if other != self.machine.peer:
                self.drive(LinkUp(peer=other))
        self.install(4)

    def install(self, epoch: int, topology: bytes = b"") -> list[PeerAction]:
        view = View(epoch=epoch, members=self.infos)
        message = Install(view=view, kind=ChangeKind.DRAIN, topology=topology)
        actions = self.drive(Heard(message=message))
        self.drive(EngineInstalled(epoch=epoch, member=True))
        return actions

    def drive(self, event: PeerEvent) -> list[PeerAction]:
        return self.machine.handle(event, self.now_s)

    def measure(self, epoch: int = 4, fresh: frozenset[bytes] = frozenset((A, B, C))) -> None:
        message = Measure(number=3, epoch=epoch, fresh=fresh, burst_s=0.05, slot_s=0.25)
        self.actions = self.drive(Heard(message=message))

    def run(self, seconds: float) -> list[tuple[float, bytes]]:
        """Whom it probes, and when; each probe is over at once."""
        probes = []
        actions = self.actions
        end_s = self.now_s + seconds
        self.said: list[PeerMessage] = []
        while self.now_s < end_s:
            for action in list(actions):
                if isinstance(action, Probe):
                    probes.append((self.now_s - 100.0, action.peer))
                    actions = actions + self.drive(
                        EngineProbed(peer=action.peer, figures=link(1e6 * action.peer[0]))
                    )
            self.said += [a.message for a in actions if isinstance(a, Say)]
            self.now_s += 0.05
            actions = self.drive(Tick())
        return probes

    @property
    def rows(self) -> list[Links]:
        return [message for message in self.said if isinstance(message, Links)]


def test_members_probe_one_another_in_turn_and_both_at_once() -> None:
    when: dict[frozenset[bytes], list[int]] = {}
    for name in "abc":
        member = Member(name)
        member.measure()
        for at_s, peer in member.run(1.5):
            when.setdefault(frozenset((member.machine.peer, peer)), []).append(round(at_s / 0.25))
        assert [row.number for row in member.rows] == [3]
        assert len(member.rows[0].figures) == 2
    assert sorted(when.values()) == [[0, 0], [1, 1], [2, 2]]


def test_only_links_with_a_fresh_end_are_probed() -> None:
    member = Member("a")
    member.measure(fresh=frozenset((C,)))
    assert [peer for _, peer in member.run(1.5)] == [C]
    assert member.rows[0].figures == {C: link(1e6 * C[0])}


def test_who_does_not_measure_says_so_at_once() -> None:
    member = Member("a", probes=False)
    member.measure()
    assert member.run(1.5) == []
    assert member.rows == [] or member.rows == [Links(number=3, figures={})]
    assert Say(message=Links(number=3, figures={})) in member.actions


def test_another_view_ends_it() -> None:
    member = Member("a")
    member.measure(epoch=3)  # late: of a view that is past
    assert member.run(1.5) == []
    member.measure()
    member.install(5)
    assert len(member.run(1.5)) <= 1


def test_a_peer_without_a_link_is_left_out() -> None:
    member = Member("a")
    member.drive(LinkDown(peer=B, reason="reset"))
    member.measure()
    assert [peer for _, peer in member.run(1.5)] == [C]


def test_a_row_is_said_again_on_a_new_stream() -> None:
    member = Member("a")
    member.measure()
    member.run(1.5)
    (row,) = member.rows
    member.drive(StreamLost())
    assert Say(message=row) in member.drive(StreamUp())


def test_the_engine_gets_the_bytes_as_they_came() -> None:
    member = Member("a")
    (install,) = [a for a in member.install(5, b"bytes") if isinstance(a, InstallEngine)]
    assert install.topology == b"bytes"


def test_the_program_may_ask() -> None:
    member = Member("a")
    assert member.drive(AppMeasure()) == [Say(message=MeasureRequest())]


def test_what_arrives_corrects_the_figures_of_a_view_once() -> None:
    member = Member("a")
    assert member.drive(AppArrived(times={B: 0.5})) == []  # nothing was measured yet
    member.measure()
    member.run(1.5)
    (row,) = member.rows
    for times in (0.5, 0.25):  # of what the same view says
        (said,) = member.drive(AppArrived(times={B: times}))
        assert isinstance(said, Say)
        assert isinstance(said.message, Links)
        rate = row.figures[B].rate_bytes_per_s
        assert said.message.figures[B].rate_bytes_per_s == times * rate
        assert said.message.figures[C] == row.figures[C]
    member.install(6)
    (said,) = member.drive(AppArrived(times={B: 2.0}))
    assert said.message.figures[B].rate_bytes_per_s == 0.5 * rate


def test_a_link_that_comes_up_later_is_not_probed_by_itself() -> None:
    member = Member("a")
    member.drive(LinkDown(peer=B, reason="reset"))
    member.measure()
    member.run(1.5)
    assert not [a for a in member.drive(LinkUp(peer=B)) if isinstance(a, Probe)]
    assert member.run(1.5) == []
