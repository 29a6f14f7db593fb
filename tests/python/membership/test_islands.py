"""Islands of several peers, rule by rule. docs/design.md 3.1, "Shards"."""

from __future__ import annotations

from bench import peer_id
from shard_bench import Shards

from atoll.membership.messages import (
    ChangeKind,
    Departure,
    Expelled,
    Fence,
    Fenced,
    Holding,
    Install,
    Installed,
    Leave,
    Linked,
    LinkFigures,
    Links,
    Measure,
    Peers,
    Ready,
    Refused,
    Report,
    Suspect,
)
from atoll.membership.starts import abort_starts
from atoll.store.encode import from_json, to_json

# --- coming ---------------------------------------------------------------------------------------


def test_an_island_comes_in_when_all_its_shards_are_there() -> None:
    bench = Shards()
    bench.form_islands("a")
    bench.come("b0", others="a")
    bench.beat(1.0, ["a0", "a1", "b0"])
    assert not bench.heard_by("a0", Fence), "a part of an island blocks nobody"
    states = {p.info.id: p.state for p in bench.machine.status(bench.now_s).peers}
    assert states[peer_id("b0")] == "registered"
    bench.come("b1", others="a")
    assert bench.fence("a0") == bench.fence("a1") == Fence(attempt=1, kind=ChangeKind.DRAIN)


def test_shards_of_an_island_that_does_not_become_whole_are_told_why() -> None:
    bench = Shards(shards_timeout_s=3.0)
    bench.form_islands("a")
    bench.come("b1", others="a")
    bench.beat(2.9, ["a0", "a1", "b1"])
    assert not bench.heard_by("b1", Expelled)
    bench.beat(0.2, ["a0", "a1", "b1"])
    said = bench.expelled("b1")
    assert said.reason is Departure.INCOMPLETE
    assert "shards 0 of the 2 of island 'b' have not come within 3 s" in said.message


def test_all_islands_have_as_many_shards() -> None:
    bench = Shards()
    bench.come("a0")
    bench.register("b0", island="b", shard=0, shards=3)
    refused = bench.last("b0")
    assert isinstance(refused, Refused)
    assert "the islands of this job have 2 shards each, and island 'b' says 3" in refused.message
    bench.register("c2", island="c", shard=2, shards=2)
    assert "no shard 2 of 2" in bench.last("c2").message  # type: ignore[union-attr]


def test_how_many_shards_is_open_again_when_nobody_came_of_it() -> None:
    bench = Shards()
    bench.come("a0")
    bench.say("a0", Leave(reason=Departure.FINISHED))
    bench.register("b0", island="b", shard=0, shards=3)
    assert not bench.heard_by("b0", Refused)


def test_a_shard_is_not_taken_twice() -> None:
    bench = Shards()
    bench.come("a0")
    bench.register("x0", island="a", shard=0, shards=2)
    assert "shard 0 of island 'a' is already running" in bench.last("x0").message  # type: ignore[union-attr]


def test_an_island_that_starts_again_does_not_mix_with_what_is_left_of_it() -> None:
    bench = Shards()
    bench.come("a0")
    bench.hang_up("a0")
    bench.register("x1", island="a", shard=1, shards=2)
    assert peer_id("a0") not in {p.info.id for p in bench.machine.status(bench.now_s).peers}
    bench.register("x0", island="a", shard=0, shards=2)
    assert bench.machine._state.islands["a"].complete


def test_peers_hear_of_their_ring_only() -> None:
    bench = Shards()
    bench.form_islands("ab")
    for shard in "01":
        told = bench.heard_by(f"a{shard}", Peers)[-1]
        assert isinstance(told, Peers)
        assert {info.id for info in told.peers} == {peer_id(f"a{shard}"), peer_id(f"b{shard}")}
        assert told.holders == {peer_id(f"a{shard}")}


def test_one_missing_link_keeps_an_island_outside() -> None:
    bench = Shards()
    bench.form_islands("a")
    bench.come("b0", others="a")
    bench.come("b1")
    bench.beat(1.0, ["a0", "a1", "b0", "b1"])
    assert not bench.heard_by("a0", Fence)


def test_enough_islands_are_counted_as_islands() -> None:
    bench = Shards(min_islands=2)
    bench.island("a")
    bench.beat(3.0, ["a0", "a1"])
    assert bench.machine.view.epoch == 0
    bench.island("b", others="a")
    bench.beat(0.3, bench.peers("ab"))
    assert bench.machine.view.islands == ("a", "b")
    assert bench.install("b1").view.ring(1).ids == (peer_id("a1"), peer_id("b1"))


# --- holding --------------------------------------------------------------------------------------


def test_an_island_holds_the_state_when_all_its_shards_do() -> None:
    bench = Shards()
    bench.form_islands("ab")
    bench.say("b0", Holding())
    assert bench.machine.holders == {peer_id("a0"), peer_id("a1")}
    bench.say("b1", Holding())
    assert bench.machine.holders == {peer_id(name) for name in ("a0", "a1", "b0", "b1")}


# --- losses ---------------------------------------------------------------------------------------


def test_a_lost_shard_takes_its_island_with_it() -> None:
    bench = Shards()
    bench.form_islands("abc")
    bench.lose("b1", "a1")
    said = bench.expelled("b0")
    assert said.reason is Departure.SHARD_LOST
    assert said.message.startswith(
        "shard 1 of this island was lost (crashed): its process has died"
    )
    for name in bench.peers("ac"):
        bench.fenced(name, 1)
    assert bench.machine.view.islands == ("a", "c")
    assert [e.message for e in bench.told if e.kind == "left"] == [
        "b left (crashed): shard 1: its process has died, says a on the same machine"
    ]
    assert bench.machine.status(bench.now_s).departures == {"crashed": 1}


def test_an_abort_starts_in_each_ring_where_that_ring_is() -> None:
    bench = Shards()
    bench.form_islands("abc")
    bench.lose("c0", "a0")
    # Ring 0 has op 4 with the contribution of the lost island, ring 1 has not.
    bench.fenced("a0", 1, c0=(5, 5, 5))
    bench.fenced("b0", 1, c0=(5, 5, 4))
    bench.fenced("a1", 1, c0=(5, 5, 4))
    bench.fenced("b1", 1, c0=(5, 4, 4))
    assert [bench.install(name).starts for name in bench.peers("ab")] == [{0: 5}, {0: 4}] * 2


def test_a_second_loss_in_the_middle_begins_again_at_the_fence() -> None:
    bench = Shards()
    bench.form_islands("abcd")
    bench.lose("d0", "a0")
    first = bench.fence("a0")
    for name in ("a0", "b0", "a1"):
        bench.fenced(name, 1, c0=(5, 5, 4))
    bench.lose("c1", "a1")
    again = bench.fence("a0")
    assert first is not None
    assert again is not None
    assert again.attempt > first.attempt
    bench.fenced("a0", 1, c0=(5, 5, 4))
    bench.fenced("b0", 1, c0=(5, 5, 4))
    bench.fenced("a1", 1, c0=(5, 5, 4))
    late = Fenced(attempt=first.attempt, epoch=1, progress={})
    bench.say("b1", late)
    assert bench.machine.view.epoch == 1
    bench.fenced("b1", 1, c0=(5, 4, 4))
    assert bench.machine.view.islands == ("a", "b")
    assert [bench.install(name).starts for name in bench.peers("ab")] == [{0: 5}, {0: 4}] * 2


def test_of_two_that_do_not_reach_each_other_in_one_ring_the_younger_island_goes() -> None:
    bench = Shards(suspicion_settle_s=0.1)
    bench.form_islands("abc")
    for one, other in (("b1", "c1"), ("c1", "b1")):
        bench.say(one, Suspect(peer=peer_id(other), reason=Departure.SILENT))
    bench.beat(0.2, bench.peers("abc"))
    assert bench.expelled("c1").reason is Departure.UNREACHABLE
    assert bench.expelled("c1").message == "no link between it and b"
    assert bench.expelled("c0").reason is Departure.SHARD_LOST


def test_a_shard_of_a_lost_island_that_has_not_heard_of_it_is_not_taken_for_a_new_one() -> None:
    bench = Shards()
    bench.form_islands("ab")
    bench.hang_up("b0")
    bench.lose("b1", "a1")
    bench.register("b0", island="b", shard=0, shards=2)
    assert bench.expelled("b0").reason is Departure.SHARD_LOST


# --- drains ---------------------------------------------------------------------------------------


def test_a_drain_is_cut_after_what_any_ring_has_started() -> None:
    bench = Shards()
    bench.form_islands("ab")
    bench.island("c", others="ab")
    bench.fenced("a0", 1, c0=(7, 6, 6))
    bench.fenced("b0", 1, c0=(6, 6, 6))
    bench.fenced("a1", 1, c0=(6, 6, 6), c1=(2, 2, 2))
    bench.fenced("b1", 1, c0=(6, 6, 6))
    assert all(bench.install(name).starts == {0: 7, 1: 2} for name in bench.peers("ab"))
    # Joiners begin when in every ring somebody has finished all that comes before.
    bench.say("a0", Installed(epoch=2))
    bench.say("b0", Installed(epoch=2))
    assert not bench.heard_by("c0", Install)
    bench.say("b1", Installed(epoch=2))
    assert bench.install("c0").starts == bench.install("c1").starts == {0: 7, 1: 2}


def joining_when_a_is_lost(in_step: bool) -> Shards:
    """`c` is to come into view 2 at op 7; ring 0 is there already. Then `a` dies; ring 1 is still
    short of an op, or (`in_step`) not."""
    bench = Shards()
    bench.form_islands("ab")
    for name in ("b0", "b1"):
        bench.say(name, Holding())
    bench.island("c", others="ab")
    for name in ("a0", "b0"):
        bench.fenced(name, 1, c0=(7, 7, 6))
    for name in ("a1", "b1"):
        bench.fenced(name, 1, c0=(7, 6, 6))
    bench.say("b0", Installed(epoch=2))
    bench.lose("a1", "b1")
    bench.fenced("b0", 2, c0=(7, 7, 7))
    bench.fenced("b1", 1, c0=(7, 7, 6) if in_step else (7, 6, 6))
    bench.fenced("c0", 0)
    bench.fenced("c1", 0)
    return bench


def test_a_newcomer_waits_for_a_drain_when_the_rings_start_apart() -> None:
    bench = joining_when_a_is_lost(in_step=False)
    assert bench.machine.view.islands == ("b",)
    assert (bench.install("b0").starts, bench.install("b1").starts) == ({0: 7}, {0: 6})
    assert not bench.heard_by("c0", Install)
    bench.say("b0", Installed(epoch=3))
    bench.say("b1", Installed(epoch=3))
    bench.fenced("b0", 3, c0=(8, 8, 8))
    bench.fenced("b1", 3, c0=(8, 8, 8))
    assert bench.machine.view.islands == ("b", "c")
    assert bench.install("c0").starts == bench.install("c1").starts == {0: 8}


def test_a_newcomer_that_waits_is_not_asked_and_not_dismissed() -> None:
    bench = joining_when_a_is_lost(in_step=False)
    fences = len(bench.heard_by("c0", Fence))
    bench.say("b1", Suspect(peer=peer_id("a1"), reason=Departure.CRASHED))
    again = Shards(snapshot=from_json(to_json(bench.saved)))  # type: ignore[arg-type]
    again.now_s = bench.now_s
    for name in ("b0", "b1"):
        again.register(name, island="b", shard=int(name[1]), shards=2, installed_epoch=1)
        again.say(name, Linked(peers=frozenset({peer_id(f"c{name[1]}")})))
    again.fenced("b0", 2, c0=(7, 7, 7))
    again.fenced("b1", 1, c0=(7, 6, 6))
    assert again.machine.view.islands == ("b",)
    assert len(bench.heard_by("c0", Fence)) == fences
    for name in ("c0", "c1"):
        again.register(name, island="c", shard=int(name[1]), shards=2)
        again.say(name, Linked(peers=frozenset({peer_id(f"b{name[1]}")})), Ready())
        assert not again.heard_by(name, Install)
    again.say("b0", Installed(epoch=4))
    again.say("b1", Installed(epoch=4))
    for name in ("b0", "b1"):
        again.fenced(name, 4, c0=(8, 8, 8))
    assert again.machine.view.islands == ("b", "c")


def test_a_newcomer_comes_in_when_the_rings_start_together() -> None:
    bench = joining_when_a_is_lost(in_step=True)
    assert bench.machine.view.islands == ("b", "c")
    assert all(bench.install(name).starts == {0: 7} for name in bench.peers("bc"))


def test_a_ring_of_newcomers_begins_where_the_others_of_their_view_do() -> None:
    bench = Shards()
    bench.form_islands("a")
    bench.island("b", others="a")
    for name in ("a0", "a1"):
        bench.fenced(name, 1, c0=(3, 3, 3))
    issued = bench.machine._state.issued
    answers = {
        peer_id("b0"): Fenced(attempt=2, epoch=2, progress={}),
        peer_id("b1"): Fenced(attempt=2, epoch=0, progress={}),
    }
    assert abort_starts(answers, issued, 2) == (2, ({0: 3}, {0: 3}))


# --- what is seen ---------------------------------------------------------------------------------


def test_links_are_measured_ring_by_ring() -> None:
    bench = Shards(measure_settle_s=0.1)
    bench.form_islands("ab")
    bench.beat(0.2, bench.peers("ab"))
    assert all(bench.heard_by(name, Measure) for name in bench.peers("ab"))
    for shard, rate in (("0", 1e7), ("1", 2e7)):
        for one, other in (("a", "b"), ("b", "a")):
            figures = {peer_id(other + shard): LinkFigures(rate_bytes_per_s=rate, rtt_s=0.02)}
            bench.say(one + shard, Links(number=1, figures=figures))
    for name in bench.peers("ab"):
        bench.fenced(name, 1)
    first, second = (bench.install(name).topology for name in ("a0", "a1"))
    assert first
    assert second
    assert first != second


def test_parity_is_a_matter_of_each_ring() -> None:
    bench = Shards()
    bench.form_islands("ab")
    for name in bench.peers("ab"):
        bench.say(name, Report(round=1, digest=f"of shard {name[1]}", contributed=True))
    assert bench.machine.status(bench.now_s).parity_failures == 0
    assert "round 1: loss nan, 2 contributed" in [event.message for event in bench.told]
    bench.say("a1", Report(round=2, digest="one"))
    bench.say("b1", Report(round=2, digest="other"))
    assert bench.machine.status(bench.now_s).parity_failures == 1


def test_a_job_is_complete_when_all_shards_of_the_last_island_have_finished() -> None:
    bench = Shards()
    bench.form_islands("a")
    for name in ("a0", "a1"):
        bench.say(name, Report(round=1))
        bench.say(name, Leave(reason=Departure.FINISHED))
    for name in ("a0", "a1"):
        bench.fenced(name, 1)
    bench.say("a0", Installed(epoch=2))
    assert not bench.machine._state.complete
    bench.say("a1", Installed(epoch=2))
    bench.register("b0", island="b", shard=0, shards=2)
    assert "the job is complete" in bench.last("b0").message  # type: ignore[union-attr]
