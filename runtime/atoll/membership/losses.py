"""Which peers are lost: deadlines that passed, and members that others do not reach.

docs/design.md 3.1, "Who is wrong when two cannot reach each other?"
"""

from __future__ import annotations

from atoll.membership.messages import ChangeKind, Departure
from atoll.membership.state import Peer, Phase, State
from atoll.membership.suspicion import largest_clique


def lose_the_silent(state: State) -> None:
    """Deadlines. Suspicions are older than a few milliseconds when they get here."""
    options, now_s = state.options, state.now_s
    for peer in list(state.peers.values()):
        if peer.lost_s is not None:
            if peer.leaving:
                state.depart(peer, peer.leaving, "its connection ended while it was leaving")
            elif now_s - peer.lost_s >= options.reconnect_grace_s:
                state.lose(
                    peer,
                    Departure.CRASHED,
                    f"its connection broke and it was not back after {options.reconnect_grace_s} s",
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
        if prompt and now_s - change.since_s >= options.fence_timeout_s:
            state.lose(
                peer,
                Departure.SILENT,
                f"no answer to a {change.phase.value} within {options.fence_timeout_s} s",
            )


def _cannot_link(state: State, peer: Peer) -> bool:
    if state.is_member(peer.id) or peer.listening_s is None or peer.leaving:
        return False
    if state.now_s - peer.listening_s < state.options.join_timeout_s:
        return False
    members = state.members()
    return bool(members) and not all(linked(peer, member) for member in members)


def lose_the_cut_off(state: State) -> None:
    """Members that others do not reach: at once if the coordinator does not either, else the clique
    decides when the suspicion has settled."""
    if not state.severed:
        return
    for pair in list(state.severed):
        for accused_id, accuser_id in (pair, pair[::-1]):
            accused, accuser = state.peers.get(accused_id), state.peers.get(accuser_id)
            if accused is None or accuser is None or not accuser.misses(accused_id):
                continue
            if _doubtful(state, accused) and not _doubtful(state, accuser):
                broken = accused.lost_s is not None
                reason = Departure.CRASHED if broken else Departure.SILENT
                path = "its connection broke" if broken else "it is silent"
                state.lose(accused, reason, f"{path} and {_testimony(accuser, accused)}")
    state.update_severed()
    settle_s = state.options.suspicion_settle_s
    if any(state.now_s - since_s >= settle_s for since_s in state.severed.values()):
        members = state.members()
        rank = {peer.id: position for position, peer in enumerate(members)}
        pairs = [(rank[one], rank[other]) for one, other in state.severed]
        kept = set(largest_clique(len(members), pairs))
        for position, peer in enumerate(members):
            if position not in kept:
                enemies = [m for m in members if m is not peer and not linked(peer, m)]
                others = ", ".join(enemy.info.island for enemy in enemies)
                state.lose(peer, Departure.UNREACHABLE, f"no link between it and {others}")
        state.update_severed()


def _doubtful(state: State, peer: Peer) -> bool:
    """Whether the coordinator has its own reason to think that a peer is gone."""
    return peer.lost_s is not None or state.now_s - peer.heard_s > 3 * state.options.heartbeat_s


def _testimony(accuser: Peer, accused: Peer) -> str:
    _, message = accuser.accused.get(accused.id, (None, ""))
    return f"{accuser.info.island} lost its link with it" + (f": {message}" if message else "")


def linked(one: Peer, other: Peer) -> bool:
    return one.has_link(other.id) and other.has_link(one.id)
