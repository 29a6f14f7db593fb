"""The peer's machine, rule by rule."""

from __future__ import annotations

import pytest
from bench import peer_id

from atoll import errors
from atoll.membership.messages import (
    UNASKED,
    ChangeKind,
    Counters,
    Departure,
    Endpoint,
    Expelled,
    Fence,
    Fenced,
    Heartbeat,
    Holding,
    Install,
    Installed,
    Leave,
    Linked,
    LinkedMore,
    Listening,
    PeerInfo,
    PeerMessage,
    Peers,
    Ready,
    Refused,
    Register,
    StopNotice,
    Suspect,
    View,
    Welcome,
)
from atoll.membership.peer import SILENT_HEARTBEATS, PeerMachine
from atoll.membership.peer_events import (
    AppHolding,
    AppLeave,
    AppReady,
    Dial,
    Drop,
    Ended,
    EngineFenced,
    EngineInstalled,
    EngineStarted,
    Expect,
    FenceEngine,
    Heard,
    InstallEngine,
    LinkDown,
    LinkUp,
    PeerAction,
    PeerEvent,
    Reconnect,
    Say,
    StartEngine,
    StreamLost,
    StreamUp,
    Tick,
)
from atoll.membership.peer_links import REDIALS

HERE = Endpoint(host="h", port=9)
THERE = Endpoint(host="other-way-to-h", port=9)
A, B, C = peer_id("a"), peer_id("b"), peer_id("c")


def info(peer: bytes, order: int) -> PeerInfo:
    return PeerInfo(id=peer, island=peer[:1].decode(), order=order, endpoints=(HERE, THERE))


class Bench:
    """Peer b, the second to register."""

    def __init__(self) -> None:
        self.machine = PeerMachine(peer=B, island="b", job="reef", software_version="1")
        self.now_s = 0.0

    def feed(self, *events: PeerEvent) -> list[PeerAction]:
        actions: list[PeerAction] = []
        for event in events:
            actions += self.machine.handle(event, self.now_s)
        return actions

    def hear(self, *messages: object) -> list[PeerAction]:
        return self.feed(*(Heard(message=message) for message in messages))  # type: ignore[arg-type]

    def says(self, *events: PeerEvent) -> list[PeerMessage]:
        return [action.message for action in self.feed(*events) if isinstance(action, Say)]

    def begin(self) -> Bench:
        self.feed(StreamUp())
        self.hear(Welcome(order=2, secret=b"s" * 32, heartbeat_s=1.0, min_islands=1))
        self.feed(EngineStarted(endpoints=(HERE,)))
        self.hear(Peers(peers=(info(A, 1), info(B, 2), info(C, 3))))
        return self

    def member(self) -> Bench:
        """Of view 1, with a and c, linked with both."""
        self.begin().feed(LinkUp(peer=A), LinkUp(peer=C))
        self.install(1, ChangeKind.ABORT)
        return self

    def install(self, epoch: int, kind: ChangeKind, *members: bytes) -> list[PeerAction]:
        ids = members or (A, B, C)
        infos = tuple(info(peer, order + 1) for order, peer in enumerate(ids))
        actions = self.hear(Install(view=View(epoch=epoch, members=infos), kind=kind))
        return actions + self.feed(EngineInstalled(epoch=epoch, member=B in ids))


def test_registration_step_by_step() -> None:
    bench = Bench()
    register = Register(software_version="1", job="reef", peer=B, island="b")
    assert bench.feed(StreamUp()) == [Say(message=register)]
    welcome = Welcome(order=2, secret=b"s" * 32, heartbeat_s=1.0, min_islands=1)
    assert bench.hear(welcome) == [StartEngine(secret=b"s" * 32)]
    assert bench.says(EngineStarted(endpoints=(HERE,))) == [Listening(endpoints=(HERE,))]
    assert bench.hear(Peers(peers=(info(A, 1), info(B, 2), info(C, 3)))) == [
        Dial(peer=A, island="a", endpoints=(HERE, THERE)),  # the younger dials
        Expect(peer=C, island="c", endpoints=(HERE, THERE)),
    ]


def test_a_death_that_the_kernel_tells_of_is_certain() -> None:
    """And told in one breath with how far it has come itself."""
    bench = Bench().member()
    freeze = FenceEngine(attempt=UNASKED, kind=ChangeKind.ABORT)
    assert bench.feed(LinkDown(peer=A, reason="died", message="gone"))[0] == freeze
    assert bench.says(EngineFenced(attempt=UNASKED, epoch=1, progress={})) == DEATH_AND_FENCED
    assert freeze not in bench.feed(LinkDown(peer=C, reason="reset", message="gone"))


DEATH = [
    Suspect(peer=A, reason=Departure.CRASHED, message="gone", certain=True),
    LinkedMore(removed=frozenset({A})),
]
DEATH_AND_FENCED = [*DEATH, Fenced(attempt=UNASKED, epoch=1, progress={})]


def test_a_death_is_told_also_when_the_engine_does_not_answer() -> None:
    bench = Bench().member()
    assert bench.says(LinkDown(peer=A, reason="died", message="gone")) == []
    bench.now_s += 0.1
    assert bench.says(Tick()) == DEATH


def test_a_death_that_waits_to_be_told_is_told_on_a_new_stream() -> None:
    bench = Bench().member()
    bench.feed(LinkDown(peer=A, reason="died", message="gone"))
    bench.feed(StreamLost(message="gone"))
    said = bench.says(StreamUp())
    assert isinstance(said[0], Register)
    assert DEATH[0] in said
    assert len(said) == len({repr(each) for each in said}), "nothing is said twice"


def test_who_stands_still_answers_a_fence_itself() -> None:
    """The engine would say the same once more."""
    bench = Bench().member()
    bench.feed(LinkDown(peer=A, reason="died", message="gone"))
    progress = {0: Counters(started=3, done=2, committed=2)}
    bench.feed(EngineFenced(attempt=UNASKED, epoch=1, progress=progress))
    answer = Say(message=Fenced(attempt=2, epoch=1, progress=progress))
    assert bench.hear(Fence(attempt=2, kind=ChangeKind.ABORT)) == [answer]
    drain = FenceEngine(attempt=3, kind=ChangeKind.DRAIN)
    assert bench.hear(Fence(attempt=3, kind=ChangeKind.DRAIN)) == [drain]
    bench.hear(Install(view=View(epoch=2, members=(info(B, 2), info(C, 3))), kind=ChangeKind.ABORT))
    asked = FenceEngine(attempt=4, kind=ChangeKind.ABORT)
    assert bench.hear(Fence(attempt=4, kind=ChangeKind.ABORT)) == [asked], "it goes on there"


def test_who_is_certain_of_a_death_waits_when_a_view_is_under_way() -> None:
    """The engine may be in it already, and the dead may not be."""
    freeze = FenceEngine(attempt=UNASKED, kind=ChangeKind.ABORT)
    asked = Bench().member()
    asked.hear(Fence(attempt=2, kind=ChangeKind.DRAIN))
    assert freeze not in asked.feed(LinkDown(peer=A, reason="died", message="gone"))
    told = Bench().member()
    view = View(epoch=2, members=(info(B, 2), info(C, 3)))
    told.hear(Install(view=view, kind=ChangeKind.ABORT))
    assert freeze not in told.feed(LinkDown(peer=A, reason="died", message="gone"))
    told.feed(EngineInstalled(epoch=2, member=True))
    assert freeze in told.feed(LinkDown(peer=C, reason="died", message="gone"))


def test_who_is_certain_of_a_death_but_has_no_coordinator_goes_on() -> None:
    bench = Bench().member()
    bench.feed(StreamLost(message="gone"))
    actions = bench.feed(LinkDown(peer=A, reason="died", message="gone"))
    assert not any(isinstance(action, FenceEngine) for action in actions)


def test_a_link_that_goes_is_told_and_dialled_again_with_patience() -> None:
    bench = Bench().member()
    assert bench.says(LinkDown(peer=A, reason="reset", message="gone")) == [
        Suspect(peer=A, reason=Departure.CRASHED, message="gone"),
        LinkedMore(removed=frozenset({A})),
    ]
    dials = 0
    for _ in range(20 * 600):
        bench.now_s += 0.05
        bench.hear(Heartbeat())
        for action in bench.feed(Tick()):
            if isinstance(action, Dial):
                dials += 1
                bench.feed(LinkDown(peer=A, reason="unreachable"))
    assert dials == REDIALS


def test_fences_and_installs_go_to_the_engine_and_its_answers_back() -> None:
    bench = Bench().member()
    assert bench.hear(Fence(attempt=3, kind=ChangeKind.DRAIN)) == [
        FenceEngine(attempt=3, kind=ChangeKind.DRAIN)
    ]
    progress = {0: Counters(started=2, done=1, committed=1)}
    assert bench.says(EngineFenced(attempt=3, epoch=1, progress=progress)) == [
        Fenced(attempt=3, epoch=1, progress=progress)
    ]
    actions = bench.install(2, ChangeKind.DRAIN, A, B)
    assert isinstance(actions[0], InstallEngine)
    assert actions[1:] == [Say(message=Installed(epoch=2))]
    assert bench.machine.view.ids == (A, B)


def test_a_repeated_install_is_answered_at_once() -> None:
    bench = Bench().member()
    view = bench.machine.view
    assert bench.hear(Install(view=view, kind=ChangeKind.ABORT)) == [
        Say(message=Installed(epoch=1))
    ]


def test_a_member_that_it_never_linked_with_is_suspected() -> None:
    bench = Bench().begin()
    bench.feed(LinkUp(peer=A))
    said = [a.message for a in bench.install(1, ChangeKind.ABORT) if isinstance(a, Say)]
    assert said[0] == Installed(epoch=1)
    assert isinstance(said[1], Suspect)
    assert said[1].peer == C


def test_a_member_that_is_not_listed_any_more_is_dropped_only_with_the_view() -> None:
    bench = Bench().member()
    assert bench.hear(Peers(peers=(info(B, 2), info(C, 3)))) == []
    actions = bench.install(2, ChangeKind.ABORT, B, C)
    assert Drop(peer=A) in actions


def test_a_new_stream_hears_everything_again() -> None:
    bench = Bench().member()
    bench.feed(AppReady(), AppHolding(epoch=1))
    bench.feed(LinkDown(peer=A, reason="silent"), LinkUp(peer=A))
    assert bench.feed(StreamLost()) == [Reconnect(at_s=0.05, coordinator="")]
    bench.feed(AppLeave(reason=Departure.DRAINED))
    assert bench.says(StreamUp()) == [
        Register(software_version="1", job="reef", peer=B, island="b", installed_epoch=1),
        Listening(endpoints=(HERE,)),
        Suspect(peer=A, reason=Departure.SILENT),
        Linked(peers=frozenset({A, C})),
        Ready(),
        Holding(),
        Leave(reason=Departure.DRAINED),
    ]


def test_what_a_view_has_settled_is_not_suspected_again() -> None:
    bench = Bench().member()
    bench.feed(LinkDown(peer=A, reason="silent"), LinkUp(peer=A))
    bench.feed(EngineFenced(attempt=1, epoch=1, progress={}))
    bench.install(2, ChangeKind.ABORT)
    bench.feed(StreamLost())
    assert not [m for m in bench.says(StreamUp()) if isinstance(m, Suspect)]


def test_it_reconnects_more_and_more_slowly_but_within_the_grace() -> None:
    bench = Bench().member()
    delays = []
    for _ in range(6):
        (action,) = bench.feed(StreamLost())
        assert isinstance(action, Reconnect)
        delays.append(action.at_s)
        bench.feed(StreamUp())
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]


def test_a_coordinator_that_does_not_answer_is_called_anew() -> None:
    bench = Bench().member()
    for _ in range(SILENT_HEARTBEATS):
        bench.now_s += 1.0
        assert bench.says(Tick()) == [Heartbeat()]
    bench.now_s += 0.1
    assert isinstance(bench.feed(Tick())[0], Reconnect)


def test_what_it_holds_counts_only_in_the_view_in_which_it_fetched() -> None:
    bench = Bench().member()
    assert bench.says(AppHolding(epoch=0)) == []
    assert bench.says(AppHolding(epoch=1)) == [Holding()]


def test_a_leaver_is_out_when_its_engine_says_so() -> None:
    bench = Bench().member()
    assert bench.says(AppLeave(reason=Departure.FINISHED)) == [Leave(reason=Departure.FINISHED)]
    assert not bench.machine.left
    bench.install(2, ChangeKind.DRAIN, A, C)
    assert bench.machine.left
    assert bench.feed(StreamLost()) == []


def test_who_never_was_in_a_view_leaves_at_once() -> None:
    bench = Bench().begin()
    bench.feed(AppLeave(reason=Departure.DRAINED))
    assert bench.machine.left


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (Expelled(reason=Departure.SILENT, message="why"), errors.Expelled),
        (StopNotice(message="enough"), errors.JobStopped),
        (Welcome(order=2, secret=b"t" * 32, heartbeat_s=1.0, min_islands=1), errors.CannotJoin),
    ],
)
def test_the_end_has_a_reason(message: object, kind: type) -> None:
    bench = Bench().member()
    ended = [action for action in bench.hear(message) if isinstance(action, Ended)]
    assert [type(action.error) for action in ended] == [kind]
    assert bench.feed(Tick(), LinkUp(peer=A)) == []


def test_a_refusal_ends_a_newcomer_but_not_one_that_comes_back() -> None:
    bench = Bench()
    bench.feed(StreamUp())
    assert isinstance(bench.hear(Refused(message="no"))[0], Ended)
    bench = Bench().begin()
    bench.feed(StreamLost(), StreamUp())
    assert bench.hear(Refused(message="a peer with this id is connected")) == []


def test_another_order_turns_the_direction_of_dialling() -> None:
    bench = Bench().begin()
    bench.feed(StreamLost(), StreamUp())
    bench.hear(Welcome(order=7, secret=b"s" * 32, heartbeat_s=1.0, min_islands=1))
    assert bench.hear(Peers(peers=(info(A, 1), info(C, 3), info(B, 7)))) == [
        Dial(peer=C, island="c", endpoints=(HERE, THERE))
    ]


def test_an_acceptor_is_told_where_the_other_listens_whenever_that_is_news() -> None:
    bench = Bench().member()
    known = (info(A, 1), info(B, 2), info(C, 3))
    assert bench.hear(Peers(peers=known)) == []
    moved = PeerInfo(id=C, island="c", order=3, endpoints=(THERE,))
    assert bench.hear(Peers(peers=(*known[:2], moved))) == [
        Expect(peer=C, island="c", endpoints=(THERE,))
    ]
    actions = bench.feed(LinkDown(peer=C, reason="reset", message="gone"))
    assert actions[-1] == Expect(peer=C, island="c", endpoints=(THERE,))
