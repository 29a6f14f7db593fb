"""Which peers are lost: deadlines that passed, and members that others do not reach.

docs/design.md 3.1, "Who is wrong when two cannot reach each other?"
"""

from __future__ import annotations

import math
from collections.abc import Collection

from atoll.membership.messages import ChangeKind, Departure, PeerId
from atoll.membership.records import Peer, Phase
from atoll.membership.state import State
from atoll.membership.suspicion import largest_clique

AGAIN_S = 0.05
"""For a newcomer that has taken too long, but has links with all members at the moment."""


def lose_the_silent(state: State) -> None:
    """Deadlines. Suspicions are older than a few milliseconds when they get here."""
    options, now_s = state.options, state.now_s
    if now_s >= state.due_s:
        _lose_the_overdue(state)
    change = state.change
    if change is None or now_s - change.since_s < options.fence_timeout_s:
        return
    before = {peer for entry in state.issued[:-1] for peer in entry.view.ids}
    for peer in state.alive(sorted(change.waiting)):
        # A drain's Install may take as long as the op that it waits for.
        prompt = (
            change.phase is Phase.FENCE
            or change.kind is ChangeKind.ABORT
            or (peer.id not in before and peer.id not in change.withheld)
        )
        overdue = now_s - change.since_s >= options.fence_timeout_s
        if prompt and overdue and not peer.restored and peer.id in state.peers:
            state.lose(
                peer,
                Departure.SILENT,
                f"no answer to a {change.phase.value} within {options.fence_timeout_s} s",
            )


def _lose_the_overdue(state: State) -> None:
    """Looks at everybody, and notes until when nobody needs to be looked at again."""
    options, now_s = state.options, state.now_s
    for peer in list(state.peers.values()):
        if peer.id not in state.peers:
            continue  # it went with another shard of its island
        if peer.lost_s is not None:
            if peer.leaving and peer.leaving is not Departure.SHARD_LOST:
                said = peer.left("its connection ended while it was leaving")
                state.depart(peer, peer.leaving, said)
            elif now_s - peer.lost_s >= _grace_s(state, peer):
                state.lose(
                    peer,
                    Departure.CRASHED,
                    f"its connection broke and it was not back after {_grace_s(state, peer):g} s",
                )
        elif now_s - peer.heard_s >= options.heartbeat_timeout_s:
            state.lose(
                peer, Departure.SILENT, f"nothing heard from it for {options.heartbeat_timeout_s} s"
            )
        elif _cannot_link(state, peer):
            state.lose(
                peer,
                Departure.UNREACHABLE,
                f"no link with all members after {options.join_timeout_s:g} s; "
                "check its advertised address and firewalls",
            )
    state.due_s = min((_due_s(state, peer) for peer in state.peers.values()), default=math.inf)


def _due_s(state: State, peer: Peer) -> float:
    """When a peer's time is over if nothing is heard of it; what is heard only puts it off."""
    options = state.options
    if peer.lost_s is not None:
        return peer.lost_s + _grace_s(state, peer)
    silent_s = peer.heard_s + options.heartbeat_timeout_s
    if state.is_member(peer.id) or peer.listening_s is None or peer.leaving:
        return silent_s
    return min(silent_s, max(state.now_s + AGAIN_S, peer.listening_s + options.join_timeout_s))


def _grace_s(state: State, peer: Peer) -> float:
    """Who was on a coordinator that froze notices only when it has been silent for a while."""
    options = state.options
    return options.restored_grace_s if peer.restored else options.reconnect_grace_s


def _cannot_link(state: State, peer: Peer) -> bool:
    if state.is_member(peer.id) or peer.listening_s is None or peer.leaving:
        return False
    if state.now_s - peer.listening_s < state.options.join_timeout_s:
        return False
    members = state.ring(peer.info.shard)
    return bool(members) and not all(linked(peer, member) for member in members)


def lose_the_cut_off(state: State) -> None:
    """Members that others do not reach: at once if the coordinator does not either, else the clique
    decides when the suspicion has settled."""
    if not state.severed:
        return
    for pair in list(state.severed):
        for accused_id, accuser_id in (pair, pair[::-1]):
            accused, accuser = state.peers.get(accused_id), state.peers.get(accuser_id)
            if accused is None or accuser is None or not accuser.misses(accused):
                continue
            if _doubtful(state, accused) and not _doubtful(state, accuser):
                broken = accused.lost_s is not None
                reason = Departure.CRASHED if broken else Departure.SILENT
                path = "its connection broke" if broken else "it is silent"
                state.lose(accused, reason, f"{path} and {_testimony(accuser, accused)}")
    state.update_severed()
    settle_s = state.options.suspicion_settle_s
    at_odds = {
        pair: since_s
        for pair, since_s in state.severed.items()
        if not state.relays.in_making(pair, state.now_s)
    }
    if any(state.now_s - since_s >= settle_s for since_s in at_odds.values()):
        _keep_the_clique(state, at_odds)


def _keep_the_clique(state: State, severed: Collection[tuple[PeerId, PeerId]]) -> None:
    """Of islands: two of them are at odds when they are in some ring."""
    islands = state.member_islands()
    rank = {p.id: position for position, one in enumerate(islands) for p in one.peers.values()}
    pairs = [(rank[one], rank[other]) for one, other in severed]
    kept = set(largest_clique(len(islands), pairs))
    for position, island in enumerate(islands):
        if position in kept:
            continue
        odds = [pair for pair in severed if position in (rank[pair[0]], rank[pair[1]])]
        first = next(p for p in island.peers.values() if any(p.id in pair for pair in odds))
        enemies = {rank[one] for pair in odds for one in pair} - {position}
        others = ", ".join(islands[enemy].name for enemy in sorted(enemies))
        for enemy in enemies:
            state.relays.part(islands[position].name, islands[enemy].name, state.now_s)
        state.lose(first, Departure.UNREACHABLE, f"no link between it and {others}")
    state.update_severed()


def _doubtful(state: State, peer: Peer) -> bool:
    """Whether the coordinator has its own reason to think that a peer is gone."""
    return peer.lost_s is not None or state.now_s - peer.heard_s > 3 * state.options.heartbeat_s


def _testimony(accuser: Peer, accused: Peer) -> str:
    _, message = accuser.accused.get(accused.id, (None, ""))
    return f"{accuser.info.island} lost its link with it" + (f": {message}" if message else "")


def linked(one: Peer, other: Peer) -> bool:
    return one.has_link(other) and other.has_link(one)
