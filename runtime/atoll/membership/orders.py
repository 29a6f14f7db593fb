"""What an operator orders for one island: to leave politely, or to be out. docs/operate.md."""

from __future__ import annotations

from atoll.membership.events import DrainRequested, KillRequested
from atoll.membership.messages import Departure, DrainNotice
from atoll.membership.state import State


def drain(state: State, event: DrainRequested) -> None:
    """Tells all shards of an island to leave once their round is over; again does no harm."""
    island = state.islands.get(event.island)
    if island is None:
        return
    peers = list(island.peers.values())
    if not any(peer.draining for peer in peers):
        text = f"{event.island} is to leave: {event.message}"
        state.tell("draining", text, peer=peers[0].info)
    for peer in peers:
        peer.draining = event.message
        state.send(peer, DrainNotice(message=event.message))


def kill(state: State, event: KillRequested) -> None:
    """Puts an island out at once; the others go on by an abort."""
    island = state.islands.get(event.island)
    if island is not None:
        state.lose(next(iter(island.peers.values())), Departure.KILLED, event.message)
