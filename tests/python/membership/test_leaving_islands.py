"""How islands of several peers leave, and what the rest of one may say. docs/design.md 3.1."""

from __future__ import annotations

from dataclasses import replace

from bench import peer_id
from shard_bench import Shards

from atoll.membership.messages import (
    Departure,
    Expelled,
    Fence,
    Install,
    Installed,
    Leave,
    Linked,
    Suspect,
)
from atoll.store.encode import from_json, to_json

# --- leaving --------------------------------------------------------------------------------------


def test_an_island_leaves_when_all_its_shards_have_said_so() -> None:
    bench = Shards()
    bench.form_islands("ab")
    bench.say("b0", Leave(reason=Departure.FINISHED))
    assert not bench.heard_by("a0", Fence)
    bench.say("b1", Leave(reason=Departure.FINISHED))
    for name in bench.peers("ab"):
        bench.fenced(name, 1, c0=(3, 3, 3))
    assert bench.machine.view.islands == ("a",)
    bench.say("b0", Installed(epoch=2))
    assert "left" not in bench.kinds()
    bench.say("b1", Installed(epoch=2))
    assert bench.machine.status(bench.now_s).departures == {"finished": 1}
    assert not bench.heard_by("b1", Expelled)


def test_a_shard_whose_island_leaves_without_it_is_told() -> None:
    bench = Shards(leave_patience_s=1.0)
    bench.form_islands("ab")
    bench.say("b0", Leave(reason=Departure.DRAINED))
    bench.beat(0.9, bench.peers("ab"))
    assert not bench.heard_by("a0", Fence)
    bench.beat(0.2, bench.peers("ab"))
    for name in bench.peers("ab"):
        bench.fenced(name, 1, c0=(3, 3, 3))
    assert bench.machine.view.islands == ("a",)
    bench.say("b1", Installed(epoch=2))
    said = bench.expelled("b1")
    assert (said.reason, said.message) == (
        Departure.SHARD_LOST,
        "shard 0 of this island leaves, and an island leaves as a whole",
    )


def test_a_shard_that_ends_by_an_error_takes_its_island_out_at_once() -> None:
    bench = Shards()
    bench.form_islands("ab")
    bench.say("b0", Leave(reason=Departure.CRASHED))
    assert bench.heard_by("a0", Fence)


def test_a_coordinator_that_comes_back_knows_which_island_is_not_whole() -> None:
    bench = Shards()
    bench.form_islands("ab")
    bench.say("b0", Leave(reason=Departure.FINISHED))
    bench.hang_up("b0")
    bench.wait(0.05)
    assert bench.saved is not None
    snapshot = from_json(to_json(bench.saved))
    assert peer_id("b0") not in {info.id for info in snapshot.peers}
    again = Shards(snapshot=replace(snapshot, pending=False))
    for name in ("a0", "a1", "b1"):
        again.register(name, island=name[0], shard=int(name[1]), shards=2, installed_epoch=1)
    for name in ("a0", "a1", "b1"):
        again.fenced(name, 1, c0=(3, 3, 3))
    assert again.machine.view.islands == ("a",)


def test_what_is_left_of_the_last_island_does_not_speak_for_the_rings_that_it_is_gone_from() -> (
    None
):
    bench = Shards()
    bench.form_islands("b")
    bench.say("b0", Leave(reason=Departure.FINISHED))
    bench.say("b1", Leave(reason=Departure.FINISHED))
    bench.island("a", others="b")
    # b0 goes on by itself, for all that is known, until the next view is issued to b1.
    bench.hang_up("b0")
    bench.wait(0.05)
    bench.fenced("b1", 1, c0=(2, 2, 2))
    assert bench.machine.view.islands == ()
    bench.say("b1", Installed(epoch=2))
    bench.beat(0.5, ["a0", "a1"])
    assert bench.machine.view.islands == ("a",)
    assert [bench.install(name).starts for name in ("a0", "a1")] == [{}, {}]
    assert bench.machine._state.newest.base == 0


def test_newcomers_do_not_go_by_what_is_left_of_an_island() -> None:
    bench = Shards()
    bench.form_islands("b")
    bench.island("a", others="b")
    bench.island("c", others="ab")  # while b is asked: the answers are still due
    for name in ("b0", "b1"):
        bench.say(name, Leave(reason=Departure.FINISHED))
    for name in ("b0", "b1"):
        bench.fenced(name, 1, c0=(1, 0, 0))
    assert bench.machine.view.islands == ("a", "c")
    assert not bench.heard_by("a0", Install)
    bench.hang_up("b0")
    bench.say("a1", Suspect(peer=peer_id("c1"), reason=Departure.SILENT))
    bench.say("a1", Linked(peers=frozenset({peer_id("b1"), peer_id("c1")})))
    for name in bench.peers("ac"):
        bench.fenced(name, 0)
    bench.fenced("b1", 1, c0=(1, 0, 0))
    assert bench.machine.view.islands == ()
    assert not bench.heard_by("a0", Install)
