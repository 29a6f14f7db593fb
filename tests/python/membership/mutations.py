"""Bugs put into the machines on purpose, for the simulation to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from atoll.membership import coordinator, peer, starts, view_change
from atoll.membership.events import Snapshot
from atoll.membership.messages import ChangeKind, Fence, Fenced, PeerId, Suspect
from atoll.membership.starts import Issued
from atoll.membership.state import Peer, Phase, State

Mutation = Callable[[pytest.MonkeyPatch], None]


def start_is_the_largest_done(patch: pytest.MonkeyPatch) -> None:
    def wrong(
        answers: Mapping[PeerId, Fenced], issued: Sequence[Issued]
    ) -> tuple[int, dict[int, int]]:
        base, right = starts.abort_starts(answers, issued)
        for answer in answers.values():
            for channel, counters in answer.progress.items():
                right[channel] = max(right.get(channel, 0), counters.done)
        return base, right

    patch.setattr(view_change, "abort_starts", wrong)


def start_of_a_drain_is_the_smallest_started(patch: pytest.MonkeyPatch) -> None:
    def wrong(answers: Sequence[Fenced], newest: Issued) -> dict[int, int]:
        counts: dict[int, list[int]] = {}
        for answer in answers:
            for channel, counters in answer.progress.items():
                counts.setdefault(channel, []).append(counters.started)
        return {**newest.starts, **{channel: min(all_) for channel, all_ in counts.items()}}

    patch.setattr(view_change, "drain_starts", wrong)


def a_survivor_of_an_older_view_counts_with_its_own_done(patch: pytest.MonkeyPatch) -> None:
    def wrong(
        answers: Mapping[PeerId, Fenced], issued: Sequence[Issued]
    ) -> tuple[int, dict[int, int]]:
        base = max((answer.epoch for answer in answers.values()), default=0)
        found: dict[int, list[int]] = {}
        for answer in answers.values():
            for channel, counters in answer.progress.items():
                found.setdefault(channel, []).append(counters.done)
        return base, {channel: min(counts) for channel, counts in found.items()}

    patch.setattr(view_change, "abort_starts", wrong)


def nobody_freezes(patch: pytest.MonkeyPatch) -> None:
    right = State.send

    def wrong(self: State, to: Peer, message: object) -> None:
        if isinstance(message, Fence):
            message = replace(message, kind=ChangeKind.DRAIN)
        right(self, to, message)  # type: ignore[arg-type]

    patch.setattr(State, "send", wrong)


def one_answer_is_enough(patch: pytest.MonkeyPatch) -> None:
    right = view_change.on_fenced

    def wrong(state: State, peer: Peer, message: Fenced) -> None:
        right(state, peer, message)
        if state.change is not None and state.change.answers:
            state.change.waiting = set()

    patch.setattr(coordinator, "on_fenced", wrong)


def an_attempt_is_like_the_other(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        State, "attempt", property(lambda self: 1, lambda self, value: None), raising=False
    )


def joiners_need_no_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(view_change, "linked", lambda one, other: True)


def members_need_no_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "update_severed", lambda self: None)


def joiners_install_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(view_change, "all_done", lambda answers, starts: True)


def a_link_that_comes_back_lost_nothing(patch: pytest.MonkeyPatch) -> None:
    def wrong(state: State, peer: Peer, message: Suspect) -> None:
        if peer.linked is not None:
            peer.linked -= {message.peer}

    patch.setattr(coordinator, "on_suspect", wrong)
    patch.setattr(view_change, "_break", lambda state: None)


def whatever_was_fetched_is_the_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        State, "state_epoch", property(lambda self: 0, lambda self, v: None), raising=False
    )


def leavers_keep_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(view_change, "behind", lambda answer, starts, newest: False)


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


ALL: list[Mutation] = [
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
]

"""Found by the simulation, each within a few hundred seeds."""

RARE: list[Mutation] = [an_attempt_is_like_the_other, whatever_was_fetched_is_the_state]
"""Found by `test_coordinator.py`; the simulation needs thousands of seeds for them."""
