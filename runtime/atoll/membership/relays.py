"""Who carries bytes between two peers that cannot reach each other. docs/design.md 4.1, "Relays".

Both have said that they have dialled the other in vain; a third that is linked with both is named,
and all of their ring are told. When it goes, or does not do, another one is. Part of the
coordinator's machine, and pure as that is.
"""

from __future__ import annotations

from atoll.membership.losses import linked
from atoll.membership.messages import PeerId, Unreached
from atoll.membership.records import Peer
from atoll.membership.state import State

MOST_PAIRS = 16
"""That one peer relays. Each is up to 16 connections, of the 128 that an engine carries at most."""

DIRECT_S = 1.0
"""Two that have lost sight of each other as members have so long to link directly, once one is
back: their path may have healed. Then nobody need dial in vain for as long as it takes."""

Pair = tuple[PeerId, PeerId]


def on_unreached(state: State, peer: Peer, message: Unreached) -> None:
    """A peer has dialled another one for as long as it may."""
    other = state.peers.get(message.peer)
    if other is None or other is peer or other.info.shard != peer.info.shard:
        return
    pair = _pair(peer, other)
    relays = state.relays
    relays.said.setdefault(pair, set()).add(peer.id)
    if message.relay and relays.by_pair.get(pair) == message.relay:
        relays.failures[pair, message.relay] = relays.failures.get((pair, message.relay), 0) + 1
        if not linked(peer, other):
            _give_up(state, pair)


def advance_relays(state: State) -> None:
    """Names relays where they are wanted and can be had."""
    relays = state.relays
    if relays.parted:
        _recall(state)
    for pair in [pair for pair in relays.said if not set(pair) <= state.peers.keys()]:
        relays.forget(pair)
        state.peers_changed = True
    for pair, relay in list(relays.by_pair.items()):
        if relay not in state.peers:
            _give_up(state, pair)
        elif not _stays(state.peers[relay]) and _choose(state, pair) not in (None, relay):
            _give_up(state, pair)  # politely: what goes through it goes on until it is gone
    for pair, said in relays.said.items():
        if pair in relays.by_pair or len(said) < 2:
            continue
        one, other = (state.peers[peer] for peer in pair)
        if linked(one, other) and not relays.left(pair):
            continue
        if (chosen := _choose(state, pair)) is not None:
            _name(state, pair, chosen)


def _recall(state: State) -> None:
    """Whoever was put out because its path to another island was gone is back, as a new peer."""
    relays = state.relays
    relays.parted = {pair: end_s for pair, end_s in relays.parted.items() if state.now_s < end_s}
    back = [
        peer
        for peer in state.peers.values()
        if not state.is_member(peer.id)
        and peer.listening_s is not None
        and state.now_s - peer.listening_s >= DIRECT_S
    ]
    for peer in back:
        for other in state.ring(peer.info.shard):
            names = frozenset((peer.info.island, other.info.island))
            if names in relays.parted and not linked(peer, other):
                relays.said.setdefault(_pair(peer, other), set()).update((peer.id, other.id))


def _choose(state: State, pair: Pair) -> PeerId | None:
    """Linked with both, and not through a relay. One that has failed least often, members first,
    then whoever relays least, then the oldest."""
    relays = state.relays
    one, other = (state.peers[peer] for peer in pair)
    load: dict[PeerId, int] = {}
    for relay in relays.by_pair.values():
        load[relay] = load.get(relay, 0) + 1

    def fits(peer: Peer) -> bool:
        return (
            peer.info.shard == one.info.shard
            and peer.id not in pair
            and bool(peer.info.endpoints)
            and _stays(peer)
            and load.get(peer.id, 0) < MOST_PAIRS
            and all(linked(peer, end) for end in (one, other))
            and not any(_pair(peer, end) in relays.by_pair for end in (one, other))
        )

    def rank(peer: Peer) -> tuple[int, bool, int, int]:
        failures = relays.failures.get((pair, peer.id), 0)
        member = state.is_member(peer.id)
        return (failures, not member, load.get(peer.id, 0), peer.info.order)

    best = min(filter(fits, state.peers.values()), key=rank, default=None)
    return None if best is None else best.id


def _stays(peer: Peer) -> bool:
    return peer.stream is not None and not peer.leaving and not peer.draining


def _pair(one: Peer, other: Peer) -> Pair:
    """The older first, which is the one that is asked for."""
    first, second = sorted((one, other), key=lambda peer: peer.info.order)
    return first.id, second.id


def _name(state: State, pair: Pair, relay: PeerId) -> None:
    state.relays.by_pair[pair] = relay
    state.relays.named_s[pair] = state.now_s
    state.relays.orphans.discard(pair)
    older, younger, between = (state.peers[peer].info for peer in (*pair, relay))
    state.peers_changed = state.dirty = True
    text = f"{younger.island} reaches {older.island} through {between.island}"
    state.tell("relayed", text, peer=younger)


def _give_up(state: State, pair: Pair) -> None:
    state.relays.by_pair.pop(pair, None)
    state.relays.orphans.add(pair)
    state.peers_changed = state.dirty = True
