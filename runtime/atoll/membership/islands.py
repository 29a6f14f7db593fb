"""Islands: which are whole, which are coming, which are going. docs/design.md 3.1, "Shards".

An island is the unit of membership. It may come into a view when all its shards are there; when one
of them is lost, all are; when one leaves, the others have a moment to do the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from atoll.membership.losses import linked
from atoll.membership.messages import Departure
from atoll.membership.records import Island, Peer
from atoll.membership.state import State


def advance_islands(state: State) -> None:
    """What follows for the rest of an island of which a part is missing or wants to leave."""
    for name in sorted(state.watched):
        island = state.islands.get(name)
        if island is None or not _look_after(state, island):
            state.watched.discard(name)


def _look_after(state: State, island: Island) -> bool:
    """Returns whether to look again."""
    options, now_s = state.options, state.now_s
    if not island.complete and island.end is None:
        if now_s - island.since_s < options.shards_timeout_s:
            return True
        missing = ", ".join(str(s) for s in range(state.shards) if s not in island.peers)
        said = (
            f"shards {missing} of the {state.shards} of island '{island.name}' have not come "
            f"within {options.shards_timeout_s:g} s; start them all, and see what these say"
        )
        for peer in list(island.peers.values()):
            state.depart(peer, Departure.INCOMPLETE, said, expel=True)
        return False
    if island.leaving_s is None:
        return False
    staying = [peer for peer in island.peers.values() if peer.leaving is None]
    overdue = now_s - island.leaving_s >= options.leave_patience_s
    if any(state.is_member(peer.id) for peer in island.peers.values()):
        crashed = any(peer.leaving is Departure.CRASHED for peer in island.peers.values())
        if overdue or crashed or island.end is not None:
            for peer in staying:
                peer.leaving = Departure.SHARD_LOST
                state.parting.add(island.name)
    elif overdue:
        for peer in staying:
            state.depart(peer, Departure.SHARD_LOST, abandoned(island), expel=True)
    return bool(staying)


def abandoned(island: Island) -> str:
    """Why a shard that did not want to has to leave."""
    if island.end is not None:
        return f"a shard of this island is gone ({island.end.reason.value}): {island.end.message}"
    own = [
        str(shard)
        for shard, peer in sorted(island.peers.items())
        if peer.leaving not in (None, Departure.SHARD_LOST)
    ]
    return f"shard {', '.join(own)} of this island leaves, and an island leaves as a whole"


def going(island: Island) -> bool:
    """Whether the next view is to be without it, should it be a member."""
    return not island.whole or all(peer.leaving for peer in island.peers.values())


def reach(one: Island, other: Island) -> bool:
    """Whether two islands are linked in every ring."""
    return all(
        linked(peer, other.peers[shard])
        for shard, peer in one.peers.items()
        if shard in other.peers
    )


def candidates(state: State) -> list[Island]:
    """Islands outside of the view all of whose shards are there and ready, oldest first."""
    found = [
        island
        for island in (state.islands[name] for name in state.outsiders)
        if island.whole and all(_ready(state, peer) for peer in island.peers.values())
    ]
    return sorted(found, key=lambda island: island.order)


def _ready(state: State, peer: Peer) -> bool:
    return (
        peer.ready
        and peer.stream is not None
        and not peer.leaving
        and not state.is_member(peer.id)
        and peer.installed_epoch == 0
    )


def peers_of(islands: Iterable[Island]) -> list[Peer]:
    """By rank, and each island's by shard."""
    return [peer for island in islands for _, peer in sorted(island.peers.items())]
