"""Pairs of which neither can dial the other: who relays for them, and what becomes of it."""

from __future__ import annotations

from bench import Bench, peer_id

from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.detours import ticket
from atoll.membership.messages import (
    ChangeKind,
    Departure,
    Endpoint,
    Fence,
    Installed,
    Leave,
    Linked,
    LinkedMore,
    Listening,
    PeerInfo,
    Peers,
    Relayed,
    Suspect,
    Unreached,
    Welcome,
)
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    Carry,
    Detour,
    Dial,
    EngineStarted,
    Expect,
    Heard,
    LinkDown,
    LinkUp,
    PeerAction,
    PeerEvent,
    Say,
    StreamUp,
    Tick,
)
from atoll.membership.peer_links import OLDER_AFTER_S
from atoll.membership.records import PARTED_S
from atoll.membership.relays import DIRECT_S

A, B, C, D = map(peer_id, "abcd")
SECRET = b"s" * 32
HERE = (Endpoint(host="h", port=9),)


# --- the coordinator ------------------------------------------------------------------------------


def cut_off(bench: Bench, one: str, other: str, others: str) -> None:
    """Both are linked with the others and have dialled each other in vain."""
    for name, enemy in ((one, other), (other, one)):
        bench.say(name, Linked(peers=frozenset(map(peer_id, others))))
        for third in others:
            bench.say(third, LinkedMore(added=frozenset({peer_id(name)})))
        bench.say(name, Unreached(peer=peer_id(enemy)))


def relayed(bench: Bench, name: str) -> tuple[Relayed, ...]:
    """As this peer has heard last."""
    message = bench.heard_by(name, Peers)[-1]
    assert isinstance(message, Peers)
    return message.relayed


def with_relay() -> Bench:
    """View 1 of a, b and c; d reaches b through the older of the others."""
    bench = Bench()
    bench.form("abc")
    bench.join("d", "")
    cut_off(bench, "b", "d", "ac")
    assert relayed(bench, "a") == (Relayed(one=B, other=D, relay=A),)
    return bench


def link(bench: Bench, *names: str) -> None:
    for name, other in (names, names[::-1]):
        bench.say(name, LinkedMore(added=frozenset({peer_id(other)})))


def test_a_joiner_comes_in_through_a_relay() -> None:
    bench = with_relay()
    assert relayed(bench, "b") == relayed(bench, "d") == relayed(bench, "a")
    assert bench.told[-1].message == "d reaches b through a"
    assert not bench.heard_by("a", Fence)
    link(bench, "b", "d")
    assert bench.fence("a") == Fence(attempt=1, kind=ChangeKind.DRAIN)


def test_one_that_cannot_dial_is_not_enough() -> None:
    bench = Bench()
    bench.form("ab")
    bench.join("c", "")
    bench.say("c", Linked(peers=frozenset({A})), Unreached(peer=B))
    bench.say("a", LinkedMore(added=frozenset({C})))
    assert relayed(bench, "c") == ()
    bench.say("b", Unreached(peer=C))
    assert relayed(bench, "c") == (Relayed(one=B, other=C, relay=A),)


def test_only_who_is_linked_with_both_relays() -> None:
    bench = Bench()
    bench.form("abc")
    bench.join("d", "")
    cut_off(bench, "b", "d", "c")
    assert relayed(bench, "d") == (Relayed(one=B, other=D, relay=C),)


def test_another_relay_is_named_when_one_does_not_do() -> None:
    bench = with_relay()
    bench.say("d", Unreached(peer=B, relay=A))
    assert relayed(bench, "d") == (Relayed(one=B, other=D, relay=C),)
    bench.say("d", Unreached(peer=B, relay=A))  # said late, of the one before
    assert relayed(bench, "d") == (Relayed(one=B, other=D, relay=C),)
    bench.say("d", Unreached(peer=B, relay=C))
    bench.say("d", Unreached(peer=B, relay=A))
    assert relayed(bench, "d") == (Relayed(one=B, other=D, relay=C),)  # each failed, a twice


def members_with_relay() -> Bench:
    """View 2 of all four; d reaches b through a."""
    bench = with_relay()
    link(bench, "b", "d")
    for name in "abc":
        bench.fenced(name, 1)
    for name in "abcd":
        bench.say(name, Installed(epoch=2))
    assert bench.members() == "abcd"
    return bench


def test_members_whose_relay_dies_have_time_to_link_through_another_one() -> None:
    bench = members_with_relay()
    bench.hang_up("a")
    for name, lost in (("b", D), ("d", B)):
        gone = Suspect(peer=A, reason=Departure.CRASHED)
        bench.say(name, gone, Suspect(peer=lost, reason=Departure.CRASHED))
    assert relayed(bench, "d") == (Relayed(one=B, other=D, relay=C),)
    for name in "bcd":
        bench.fenced(name, 2)
    bench.wait(1.0, beating="bcd")
    assert bench.members() == "abcd"  # nobody is put out, and none is told of a view yet
    link(bench, "b", "d")
    assert bench.members() == "bcd"


def test_members_whose_relay_dies_part_when_there_is_no_other_in_time() -> None:
    bench = members_with_relay()
    bench.hang_up("a")
    for name, lost in (("b", D), ("d", B)):
        gone = Suspect(peer=A, reason=Departure.CRASHED)
        bench.say(name, gone, Suspect(peer=lost, reason=Departure.CRASHED))
    for name in "bcd":
        bench.fenced(name, 2)
    bench.wait(4.0, beating="bcd")
    assert bench.expelled("d").reason is Departure.UNREACHABLE
    for name in "bc":
        bench.fenced(name, 2)
    assert bench.members() == "bc"
    assert relayed(bench, "b") == ()


def test_a_relay_that_leaves_is_relieved_before() -> None:
    bench = members_with_relay()
    bench.say("a", Leave(reason=Departure.FINISHED))
    assert relayed(bench, "d") == (Relayed(one=B, other=D, relay=C),)


def parted() -> Bench:
    """View 2 of a and b, which has lost sight of c; c is back, as another peer that a reaches."""
    bench = Bench()
    bench.form("abc")
    for name, lost in (("b", C), ("c", B)):
        bench.say(name, Suspect(peer=lost, reason=Departure.SILENT))
    bench.wait(1.0, beating="abc")
    assert bench.expelled("c").reason is Departure.UNREACHABLE
    for name in "ab":
        bench.fenced(name, 1)
    for name in "ab":
        bench.say(name, Installed(epoch=2))
    bench.register("c2", island="c")
    bench.say("c2", Listening(endpoints=HERE), Linked(peers=frozenset({A})))
    bench.say("a", LinkedMore(added=frozenset({peer_id("c2")})))
    assert relayed(bench, "c2") == ()
    return bench


def test_who_was_put_out_for_a_lost_path_comes_back_through_a_relay_without_dialling_in_vain() -> (
    None
):
    bench = parted()
    bench.wait(DIRECT_S + 0.1, beating="ab")
    assert relayed(bench, "c2") == (Relayed(one=B, other=peer_id("c2"), relay=A),)
    assert relayed(bench, "b") == relayed(bench, "c2")


def test_a_path_that_has_healed_needs_no_relay() -> None:
    bench = parted()
    link(bench, "b", "c2")
    bench.wait(DIRECT_S + 0.1, beating="ab")
    assert relayed(bench, "c2") == ()


def test_a_lost_path_is_forgotten_after_a_while() -> None:
    bench = parted()
    bench.say("c2", Leave(reason=Departure.FINISHED))
    bench.wait(PARTED_S, beating="ab")
    bench.register("c3", island="c")
    bench.say("c3", Listening(endpoints=HERE), Linked(peers=frozenset({A})))
    bench.say("a", LinkedMore(added=frozenset({peer_id("c3")})))
    bench.wait(DIRECT_S + 0.1, beating="ab")
    assert relayed(bench, "c3") == ()


def test_a_restarted_coordinator_knows_the_relays() -> None:
    bench = members_with_relay()
    again = CoordinatorMachine(bench.options, secret=bytes(32), snapshot=bench.saved)
    assert again.status(0.0).relayed == (Relayed(one=B, other=D, relay=A),)


# --- a peer ---------------------------------------------------------------------------------------


class One:
    """Peer b, the second to register, among a, b, c."""

    def __init__(self) -> None:
        self.machine = PeerMachine(peer=B, island="b", job="reef", software_version="1")
        self.now_s = 0.0
        self.feed(StreamUp())
        welcome = Welcome(order=2, secret=SECRET, heartbeat_s=1.0, min_islands=1)
        self.feed(Heard(message=welcome), EngineStarted(endpoints=HERE))

    def feed(self, *events: PeerEvent) -> list[PeerAction]:
        return [a for event in events for a in self.machine.handle(event, self.now_s)]

    def list(self, *relays: Relayed, gone: bytes = b"") -> list[PeerAction]:
        infos = tuple(
            PeerInfo(id=peer, island=peer[:1].decode(), order=order, endpoints=HERE)
            for order, peer in enumerate((A, B, C), start=1)
            if peer != gone
        )
        return self.feed(Heard(message=Peers(peers=infos, relayed=relays)))

    def wait(self, seconds: float) -> list[PeerAction]:
        self.now_s += seconds
        return [action for action in self.feed(Tick()) if isinstance(action, Dial)]


def test_the_older_one_dials_when_the_younger_one_cannot() -> None:
    one = One()
    assert one.list() == [
        Dial(peer=A, island="a", endpoints=HERE),
        Expect(peer=C, island="c", endpoints=HERE),
    ]
    one.feed(LinkUp(peer=A))
    assert one.wait(0.9 * OLDER_AFTER_S) == []
    assert one.wait(0.2 * OLDER_AFTER_S) == [Dial(peer=C, island="c", endpoints=HERE)]
    said = one.feed(LinkDown(peer=C, reason="unreachable"))
    assert Say(message=Unreached(peer=C)) in said
    assert Say(message=Unreached(peer=C)) in one.feed(StreamUp())  # another coordinator, perhaps
    one.feed(LinkUp(peer=C))
    assert Say(message=Unreached(peer=C)) not in one.feed(StreamUp())
    assert one.wait(100.0) == []


def test_the_younger_one_asks_the_relay() -> None:
    one = One()
    one.list()
    one.feed(LinkUp(peer=C), LinkDown(peer=A, reason="unreachable"))
    through = Relayed(one=A, other=B, relay=C)
    detour = Detour(relay=C, ticket=ticket(SECRET, through))
    assert one.list(through) == [Dial(peer=A, island="a", endpoints=HERE, detour=detour)]
    assert one.list(through) == []
    said = one.feed(LinkDown(peer=A, reason="unreachable"))
    assert Say(message=Unreached(peer=A, relay=C)) in said
    assert one.wait(10.0) == [Dial(peer=A, island="a", endpoints=HERE, detour=detour)]
    assert one.list() == [Dial(peer=A, island="a", endpoints=HERE)]  # the relay is one no more


def test_the_older_one_waits_for_the_relays_call() -> None:
    one = One()
    one.list()
    one.feed(LinkUp(peer=A), LinkDown(peer=C, reason="unreachable"))
    assert one.list(Relayed(one=B, other=C, relay=A)) == []
    assert one.wait(100.0) == []
    one.list()
    assert one.wait(100.0) == [Dial(peer=C, island="c", endpoints=HERE)]


def test_a_relay_is_told_whom_to_bring_together_and_when_not_to_any_more() -> None:
    one = One()
    one.list()
    pair = Relayed(one=A, other=C, relay=B)
    carry = Carry(one=A, other=C, ticket=ticket(SECRET, pair))
    assert one.list(pair) == [carry]
    assert one.list(pair) == []
    assert Carry(one=A, other=C, ticket=b"") in one.list(pair, gone=C)


def test_tickets_differ_by_pair_relay_and_job() -> None:
    pairs = [
        (SECRET, Relayed(one=A, other=B, relay=C)),
        (SECRET, Relayed(one=A, other=B, relay=D)),
        (SECRET, Relayed(one=A, other=D, relay=C)),
        (bytes(32), Relayed(one=A, other=B, relay=C)),
    ]
    assert len({ticket(*pair) for pair in pairs}) == len(pairs)
    assert ticket(SECRET, Relayed(one=B, other=A, relay=C)) == ticket(*pairs[0])
