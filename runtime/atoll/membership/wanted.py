"""Which islands the next view is to have, when nobody is lost."""

from __future__ import annotations

from atoll.membership.islands import candidates, going, peers_of, reach
from atoll.membership.places import each
from atoll.membership.records import Island
from atoll.membership.state import State
from atoll.membership.suspicion import largest_clique


def changes(state: State) -> bool:
    """Whether another view is wanted. That all are to stay and nobody new can come in is found out
    without looking at the members: this is asked after every event."""
    parting = (state.islands[name] for name in state.parting)
    may = state.gone or any(going(island) for island in parting)
    if not may and all(_kept_out(state, newcomer) for newcomer in candidates(state)):
        return False
    ids = tuple(peer.id for peer in peers_of(wanted(state)))
    return ids != state.newest.view.ids


def wanted(state: State) -> list[Island]:
    """Islands of the next view if nobody is lost: without the leavers, with the joiners."""
    members = state.member_islands()
    staying = [island for island in members if not going(island)]
    new = [c for c in candidates(state) if all(reach(c, member) for member in members)]
    return sorted(staying + clique(new), key=lambda island: island.order)


def _kept_out(state: State, newcomer: Island) -> bool:
    """Whether some member has no link with it: the one that had none the last time, or another."""
    witness = state.kept_out.get(newcomer.name)
    there = witness is not None and state.islands.get(witness.name) is witness
    if witness is not None and there and not reach(newcomer, witness):
        return True
    for member in state.member_islands():
        if not reach(newcomer, member):
            state.kept_out[newcomer.name] = member
            return True
    return False


def clique(islands: list[Island], least: int = 1) -> list[Island]:
    """The largest set of them that all reach each other; none when it has fewer than `least`."""
    rings: dict[int, int] = {}
    rank_of = {}
    for rank, island in enumerate(islands):
        for shard, peer in island.peers.items():
            rings[shard] = rings.get(shard, 0) | peer.bit
            rank_of[peer.bit] = rank
    lacking = [
        [ring & ~((island.peers[s].linked or 0) | island.peers[s].bit) for s, ring in rings.items()]
        for island in islands
    ]
    most = len(islands) - least
    if sum(all(lacks.bit_count() <= most for lacks in of_one) for of_one in lacking) < least:
        return []  # most have not linked yet, and the pairs of those would be too many
    pairs = {
        (min(rank, rank_of[bit]), max(rank, rank_of[bit]))
        for rank, of_one in enumerate(lacking)
        for lacks in of_one
        for bit in each(lacks)
    }
    found = [islands[rank] for rank in largest_clique(len(islands), pairs)]
    return found if len(found) >= least else []
