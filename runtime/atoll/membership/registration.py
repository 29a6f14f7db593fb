"""How peers come to the coordinator: registration, reconnection, refusal."""

from __future__ import annotations

from atoll.membership.messages import (
    PROTOCOL_VERSION,
    Departure,
    DrainNotice,
    Expelled,
    Fence,
    PeerId,
    PeerInfo,
    Refused,
    Register,
    Welcome,
)
from atoll.membership.records import Peer, Phase
from atoll.membership.state import COMPLETE, State
from atoll.membership.view_change import install_message, on_installed


def register(state: State, stream: int, message: Register) -> None:
    """A stream says who it is: a new peer, or one that reconnects."""
    known = state.peers.get(message.peer)
    reason = _refusal(state, message, known)
    if reason:
        state.close(stream, Refused(message=reason))
        return
    if known is None and (message.installed_epoch or _was_part(state, message.peer)):
        departure, text = state.departed.get(
            message.peer, (Departure.SILENT, "the others went on without it")
        )
        state.close(stream, Expelled(reason=departure, message=text))
        return
    if known is None:
        peer = _welcome_new(state, message)
    else:
        peer = known
        if peer.stream is not None:  # it has noticed first that the old path is dead
            state.close(peer.stream)
    peer.stream = stream
    peer.lost_s = None
    peer.heard_s = state.now_s
    if peer.restored:
        peer.restored = False
        peer.listening_s = state.now_s if peer.info.endpoints else None
        if state.change is not None:  # it could not answer any earlier
            state.change.since_s = state.now_s
    state.set_linked(peer, None if known else 0)
    state.look_at_all(state.now_s + state.options.heartbeat_timeout_s)
    state.streams[stream] = peer.id
    options = state.options
    state.send(
        peer,
        Welcome(
            order=peer.info.order,
            secret=state.secret,
            heartbeat_s=options.heartbeat_s,
            min_islands=options.min_islands,
        ),
    )
    if peer.listening_s is not None:
        state.uninformed.add(peer.id)
        state.peers_changed = state.peers_changed or not state.listed
    if message.installed_epoch:
        on_installed(state, peer, message.installed_epoch)
    if peer.id in state.peers:
        _resume(state, peer)
        if peer.draining:
            state.send(peer, DrainNotice(message=peer.draining))


def _was_part(state: State, peer: PeerId) -> bool:
    """Whether it was a shard of an island that is gone, and has not heard of it. An island of one
    may come again as it is; a part of another one may not."""
    seen = peer in state.departed or any(peer in entry.view.ids for entry in state.issued)
    return state.shards > 1 and seen


def _welcome_new(state: State, message: Register) -> Peer:
    info = PeerInfo(
        id=message.peer,
        island=message.island,
        order=state.next_order,
        endpoints=(),
        shard=message.shard,
    )
    state.next_order += 1
    state.dirty = True
    peer = Peer(info=info, stream=None, heard_s=state.now_s)
    state.peers[message.peer] = peer
    state.shards = message.shards
    state.admit(peer)
    if any(peer.id in entry.view.ids for entry in state.issued):
        # It was lost before it had heard of that view: a newcomer again, and no leaver of it.
        state.held_back |= {peer.id}
    return peer


def _resume(state: State, peer: Peer) -> None:
    """Says again what a peer may have missed while its stream was broken."""
    change = state.change
    if change is None or peer.id not in change.waiting:
        return
    if change.phase is Phase.FENCE:
        state.send(peer, Fence(attempt=state.attempt, kind=change.kind))
    elif peer.id not in change.withheld:
        state.send(peer, install_message(state, peer.info.shard))


def _refusal(state: State, message: Register, known: Peer | None) -> str:
    """Returns why a peer cannot be taken and what to do, or nothing."""
    job, epoch = state.options.job, state.newest.view.epoch
    if message.protocol_version != PROTOCOL_VERSION:
        return (
            f"this coordinator speaks version {PROTOCOL_VERSION} of the protocol, the peer "
            f"{message.protocol_version}; install the same release of atoll everywhere"
        )
    if message.job != job:
        return f"this coordinator runs job '{job}', not '{message.job}'; check the job's name"
    if state.stopping:
        return f"the job was stopped: {state.stopping}"
    if message.installed_epoch > epoch:
        return (
            f"the peer has installed view {message.installed_epoch}, of which this coordinator "
            "knows nothing: it was started again without its store; start the islands again"
        )
    if known is not None:
        return _refusal_of_known(state, message, known)
    if message.installed_epoch:
        return ""
    if state.complete:
        return COMPLETE
    return _refusal_of_shard(state, message) or _refusal_of_island(state, message)


def _refusal_of_known(state: State, message: Register, known: Peer) -> str:
    if (known.info.island, known.info.shard) != (message.island, message.shard):
        return (
            f"this peer id belongs to {_described(state, known.info.island, known.info.shard)}; "
            "do not copy a running process's state"
        )
    heard_ago_s = state.now_s - known.heard_s
    if (
        known.stream is not None
        and message.installed_epoch == 0
        and heard_ago_s < 2.5 * state.options.heartbeat_s
    ):
        return "a peer with this id is connected; each process must draw its own"
    return ""


def _refusal_of_shard(state: State, message: Register) -> str:
    if state.shards and message.shards != state.shards:
        return (
            f"the islands of this job have {state.shards} shards each, and island "
            f"'{message.island}' says {message.shards}; start all islands with as many processes"
        )
    if message.shard >= message.shards:
        return f"there is no shard {message.shard} of {message.shards}; they are counted from 0"
    return ""


def _refusal_of_island(state: State, message: Register) -> str:
    """A name is taken as long as those who have it are alive; else they have died unnoticed."""
    island = state.islands.get(message.island)
    if island is None:
        return ""
    twin = island.peers.get(message.shard)
    gone = [peer for peer in island.peers.values() if peer.stream is None]
    if twin is None and not gone and not island.complete and island.end is None:
        return ""  # one more of its shards
    if twin is not None and any(twin.id in pair for pair in state.severed):
        gone.append(twin)
    if gone and (twin is None or twin in gone):
        state.lose(gone[0], Departure.CRASHED, "its island was started again")
        return ""
    described = _described(state, message.island, message.shard)
    return (
        f"{described} is already running; give every island a name of its own, "
        "or wait until the other one has left"
    )


def _described(state: State, island: str, shard: int) -> str:
    return f"shard {shard} of island '{island}'" if state.shards > 1 else f"island '{island}'"
