"""Bugs put into the machines on purpose, for the simulation to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from atoll.membership import answers, coordinator, peer, starts, view_change, wanted
from atoll.membership.events import Snapshot
from atoll.membership.messages import (
    UNASKED,
    ChangeKind,
    CoordinatorMessage,
    Departure,
    Fence,
    Fenced,
    PeerId,
    PeerInfo,
    Suspect,
    View,
)
from atoll.membership.records import Change, Island, Peer, Phase
from atoll.membership.starts import Issued
from atoll.membership.state import State
from atoll.sim import leader
from atoll.sim.engine import Engine
from atoll.sim.leader import Leader, Register

Mutation = Callable[[pytest.MonkeyPatch], None]
Starts = dict[int, int]


def _by_shard(
    answers: Mapping[PeerId, Fenced], issued: Sequence[Issued]
) -> list[tuple[int, Fenced]]:
    shards = {info.id: info.shard for entry in issued for info in entry.view.members}
    return [(shards[peer], answer) for peer, answer in answers.items()]


def start_is_the_largest_done(patch: pytest.MonkeyPatch) -> None:
    def wrong(
        answers: Mapping[PeerId, Fenced], issued: Sequence[Issued], shards: int
    ) -> tuple[int, tuple[Starts, ...]]:
        base, right = starts.abort_starts(answers, issued, shards)
        for shard, answer in _by_shard(answers, issued):
            for channel, counters in answer.progress.items():
                right[shard][channel] = max(right[shard].get(channel, 0), counters.done)
        return base, right

    patch.setattr(view_change, "abort_starts", wrong)


def start_of_a_drain_is_the_smallest_started(patch: pytest.MonkeyPatch) -> None:
    def wrong(answers: Sequence[Fenced], newest: Issued) -> Starts:
        counts: dict[int, list[int]] = {}
        for answer in answers:
            for channel, counters in answer.progress.items():
                counts.setdefault(channel, []).append(counters.started)
        right = starts.drain_starts((), newest)
        return {**right, **{channel: min(all_) for channel, all_ in counts.items()}}

    patch.setattr(view_change, "drain_starts", wrong)


def a_survivor_of_an_older_view_counts_with_its_own_done(patch: pytest.MonkeyPatch) -> None:
    def wrong(
        answers: Mapping[PeerId, Fenced], issued: Sequence[Issued], shards: int
    ) -> tuple[int, tuple[Starts, ...]]:
        base = max((answer.epoch for answer in answers.values()), default=0)
        found: tuple[Starts, ...] = tuple({} for _ in range(shards))
        for shard, answer in _by_shard(answers, issued):
            for channel, counters in answer.progress.items():
                least = min(found[shard].get(channel, counters.done), counters.done)
                found[shard][channel] = least
        return base, found

    patch.setattr(view_change, "abort_starts", wrong)


def nobody_freezes(patch: pytest.MonkeyPatch) -> None:
    right = State.send

    def wrong(self: State, to: Peer, message: object) -> None:
        if isinstance(message, Fence):
            message = replace(message, kind=ChangeKind.DRAIN)
        right(self, to, message)  # type: ignore[arg-type]

    patch.setattr(State, "send", wrong)


def one_answer_is_enough(patch: pytest.MonkeyPatch) -> None:
    right = answers.on_fenced

    def wrong(state: State, peer: Peer, message: Fenced) -> None:
        right(state, peer, message)
        if state.change is not None and state.change.answers:
            state.change.waiting = set()

    patch.setattr(coordinator, "on_fenced", wrong)


def an_attempt_is_like_the_other(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        State, "attempt", property(lambda self: 1, lambda self, value: None), raising=False
    )


def who_froze_unasked_is_frozen_in_any_view(patch: pytest.MonkeyPatch) -> None:
    """Also when a view is under way to it in which it goes on."""
    right = answers.on_fenced

    def wrong(state: State, peer: Peer, message: Fenced) -> None:
        unasked = message.attempt == UNASKED
        right(state, peer, replace(message, attempt=state.attempt) if unasked else message)

    patch.setattr(coordinator, "on_fenced", wrong)


def joiners_need_no_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wanted, "reach", lambda one, other: True)


def members_need_no_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "update_severed", lambda self: None)


def joiners_install_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(view_change, "all_done", lambda answers, starts: True)


def a_link_that_comes_back_lost_nothing(patch: pytest.MonkeyPatch) -> None:
    def wrong(state: State, peer: Peer, message: Suspect) -> None:
        if peer.linked is not None:
            state.set_linked(peer, peer.linked & ~state.places.bits((message.peer,)))

    patch.setattr(coordinator, "on_suspect", wrong)
    patch.setattr(view_change, "_break", lambda state: None)


def whatever_was_fetched_is_the_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        State, "state_epoch", property(lambda self: 0, lambda self, v: None), raising=False
    )


def leavers_keep_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(view_change, "behind", lambda answer, starts, before: False)


def a_restart_forgets_the_change(patch: pytest.MonkeyPatch) -> None:
    right = State.snapshot

    def wrong(self: State) -> Snapshot:
        return replace(right(self), pending=False)

    patch.setattr(State, "snapshot", wrong)


def a_restart_forgets_the_epoch(patch: pytest.MonkeyPatch) -> None:
    right = State.snapshot

    def wrong(self: State) -> Snapshot:
        snapshot = right(self)
        return replace(snapshot, issued=snapshot.issued[:1])

    patch.setattr(State, "snapshot", wrong)


def links_end_when_a_peer_is_not_listed(patch: pytest.MonkeyPatch) -> None:
    right = peer.PeerMachine._meet

    def wrong(self: peer.PeerMachine) -> None:
        view, pending = self.view, self._pending
        self.view, self._pending = replace(view, members=()), {}
        right(self)
        self.view, self._pending = view, pending

    patch.setattr(peer.PeerMachine, "_meet", wrong)


def a_drain_does_not_wait_for_the_one_before(patch: pytest.MonkeyPatch) -> None:
    right = view_change.advance

    def wrong(state: State) -> None:
        change = state.change
        if change is not None and change.phase is Phase.INSTALL and len(change.waiting) < 2:
            change.waiting = set()
        right(state)

    patch.setattr(coordinator, "advance", wrong)


def a_deposed_leader_writes(patch: pytest.MonkeyPatch) -> None:
    """The store does not ask who leads; the newest snapshot is whoever's came last."""

    def wrong(self: Register, token: int, snapshot: Snapshot) -> bool:
        return right(self, self._leader, snapshot)

    right = Register.save
    patch.setattr(Register, "save", wrong)


def a_deposed_leader_answers_without_asking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leader, "decides", lambda action: False)


def a_write_that_failed_does_not_matter(patch: pytest.MonkeyPatch) -> None:
    right = Leader._save

    def wrong(self: Leader, snapshot: Snapshot) -> None:
        if not self._job.write_fails():
            right(self, snapshot)

    patch.setattr(Leader, "_save", wrong)


def the_fence_is_skipped(patch: pytest.MonkeyPatch) -> None:
    """A view is issued without asking anybody how far it has come."""
    right = view_change._begin

    def wrong(state: State, kind: ChangeKind, without: frozenset[str] = frozenset()) -> None:
        right(state, kind, without)
        if state.change is not None:
            state.change.waiting = set()

    patch.setattr(view_change, "_begin", wrong)
    patch.setattr(view_change, "behind", lambda answer, starts, before: False)
    patch.setattr(view_change, "on_fenced", lambda state, peer, message: None)


def an_op_commits_on_the_first_done(patch: pytest.MonkeyPatch) -> None:
    right = Engine._advance

    def wrong(self: Engine, number: int) -> None:
        right(self, number)
        channel = self.channel(number)
        op = channel.op
        if op is not None and op.result is not None and op.dones and self.fenced is None:
            self._commit(number, channel, op)

    patch.setattr(Engine, "_advance", wrong)


def an_epoch_is_used_again(patch: pytest.MonkeyPatch) -> None:
    def wrong(*, epoch: int, members: tuple[PeerInfo, ...]) -> View:
        return View(epoch=1 if epoch == 2 else epoch, members=members)

    patch.setattr(view_change, "View", wrong)


def a_fence_is_obeyed_whenever_it_comes(patch: pytest.MonkeyPatch) -> None:
    """Also one that has led to a view already, and comes a second time."""
    right = peer.PeerMachine._hear

    def wrong(self: peer.PeerMachine, message: CoordinatorMessage) -> None:
        self._fences._settled = 0
        right(self, message)

    patch.setattr(peer.PeerMachine, "_hear", wrong)


ALL: list[Mutation] = [
    the_fence_is_skipped,
    an_op_commits_on_the_first_done,
    an_epoch_is_used_again,
    a_deposed_leader_writes,
    a_deposed_leader_answers_without_asking,
    a_write_that_failed_does_not_matter,
    start_is_the_largest_done,
    start_of_a_drain_is_the_smallest_started,
    a_survivor_of_an_older_view_counts_with_its_own_done,
    nobody_freezes,
    one_answer_is_enough,
    joiners_need_no_links,
    members_need_no_links,
    joiners_install_at_once,
    a_link_that_comes_back_lost_nothing,
    leavers_keep_step,
    a_restart_forgets_the_change,
    a_restart_forgets_the_epoch,
    links_end_when_a_peer_is_not_listed,
    a_drain_does_not_wait_for_the_one_before,
    a_fence_is_obeyed_whenever_it_comes,
]

"""Found by the simulation, each within a few hundred seeds."""

RARE: list[Mutation] = [
    an_attempt_is_like_the_other,
    whatever_was_fetched_is_the_state,
    who_froze_unasked_is_frozen_in_any_view,
]
"""Found by `test_coordinator.py`; the simulation needs thousands of seeds for them."""


# --- islands of several peers ---------------------------------------------------------------------


def an_island_comes_in_with_a_shard_missing(patch: pytest.MonkeyPatch) -> None:
    right = State.admit

    def wrong(self: State, peer: Peer) -> None:
        right(self, peer)
        self.islands[peer.info.island].complete = True

    patch.setattr(State, "admit", wrong)


def the_rest_of_a_lost_island_is_kept(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: State, peer: Peer, reason: Departure, message: str) -> None:
        self.depart(peer, reason, message, expel=True)
        self.broken = True

    patch.setattr(State, "lose", wrong)
    patch.setattr(Island, "whole", property(lambda self: self.complete))


def the_first_ring_starts_for_all(patch: pytest.MonkeyPatch) -> None:
    def wrong(
        answers: Mapping[PeerId, Fenced], issued: Sequence[Issued], shards: int
    ) -> tuple[int, tuple[Starts, ...]]:
        base, right = starts.abort_starts(answers, issued, shards)
        return base, right[:1] * shards

    patch.setattr(view_change, "abort_starts", wrong)


def all_rings_carry_on_the_same_view(patch: pytest.MonkeyPatch) -> None:
    """Also those in which nobody has installed it yet."""

    def wrong(
        answers: Mapping[PeerId, Fenced], issued: Sequence[Issued], shards: int
    ) -> tuple[int, tuple[Starts, ...]]:
        newest = max((answer.epoch for answer in answers.values()), default=0)
        if not newest:
            return 0, tuple({} for _ in range(shards))
        base = next(entry for entry in issued if entry.view.epoch == newest)
        found = []
        for shard in range(shards):
            ring = {i.id for i in base.view.members if i.shard == shard}
            of_ring = {peer: answer for peer, answer in answers.items() if peer in ring}
            found.append(starts._ring_starts(of_ring, base, base.ring(shard).starts))
        return newest, tuple(found)

    patch.setattr(view_change, "abort_starts", wrong)


def newcomers_begin_where_each_ring_is(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(view_change, "unequal", lambda rings: False)


def joiners_follow_the_first_ring(patch: pytest.MonkeyPatch) -> None:
    right = view_change._release

    def wrong(state: State, change: Change) -> None:
        change.switched = set(range(state.shards))
        right(state, change)

    patch.setattr(view_change, "_release", wrong)


def each_ring_is_cut_by_itself(patch: pytest.MonkeyPatch) -> None:
    """A drain starts, in every ring, after what was started there."""
    right = view_change._issue

    def wrong(
        state: State,
        change: Change,
        islands: list[Island],
        recipients: list[Peer],
        base: int,
        cut: tuple[Starts, ...],
    ) -> None:
        if change.kind is ChangeKind.DRAIN:
            shards = _by_shard(change.answers, state.issued)
            cut = tuple(
                starts.drain_starts(
                    [answer for of, answer in shards if of == shard],
                    replace(state.newest, rings=(state.newest.ring(shard),)),
                )
                for shard in range(state.shards)
            )
        right(state, change, islands, recipients, base, cut)

    patch.setattr(view_change, "_issue", wrong)


def only_links_of_the_first_ring_count(patch: pytest.MonkeyPatch) -> None:
    right = State.update_severed

    def wrong(self: State) -> None:
        right(self)
        first = {info.id for info in self.newest.view.members if info.shard == 0}
        self.severed = {pair: s for pair, s in self.severed.items() if first.issuperset(pair)}

    patch.setattr(State, "update_severed", wrong)


def one_shard_that_holds_the_state_is_enough(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: coordinator.CoordinatorMachine, peer: Peer) -> None:
        state = self._state
        if state.is_member(peer.id) and peer.installed_epoch >= state.state_epoch:
            if peer.id not in state.holders:
                state.dirty = state.peers_changed = True
            state.holders |= {p.id for p in state.islands[peer.info.island].peers.values()}

    patch.setattr(coordinator.CoordinatorMachine, "_hold", wrong)


SHARDS: list[Mutation] = [
    an_island_comes_in_with_a_shard_missing,
    the_rest_of_a_lost_island_is_kept,
    the_first_ring_starts_for_all,
    all_rings_carry_on_the_same_view,
    newcomers_begin_where_each_ring_is,
    joiners_follow_the_first_ring,
    each_ring_is_cut_by_itself,
    only_links_of_the_first_ring_count,
    one_shard_that_holds_the_state_is_enough,
]
"""Of islands of several peers."""
