"""How peers come to the coordinator: registration, reconnection, refusal."""

from __future__ import annotations

from atoll.membership.messages import (
    PROTOCOL_VERSION,
    Departure,
    Expelled,
    Fence,
    PeerId,
    PeerInfo,
    Refused,
    Register,
    Welcome,
)
from atoll.membership.state import COMPLETE, Peer, Phase, State
from atoll.membership.view_change import install_message, on_installed


def register(state: State, stream: int, message: Register) -> None:
    """A stream says who it is: a new peer, or one that reconnects."""
    known = state.peers.get(message.peer)
    reason = _refusal(state, message, known)
    if reason:
        state.close(stream, Refused(message=reason))
        return
    if known is None and message.installed_epoch:
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
    peer.linked = None if known else frozenset()
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
    state.peers_changed = state.peers_changed or peer.listening_s is not None
    if message.installed_epoch:
        on_installed(state, peer, message.installed_epoch)
    if peer.id in state.peers:
        _resume(state, peer)


def _welcome_new(state: State, message: Register) -> Peer:
    info = PeerInfo(id=message.peer, island=message.island, order=state.next_order, endpoints=())
    state.next_order += 1
    state.dirty = True
    peer = Peer(info=info, stream=None, heard_s=state.now_s)
    state.peers[message.peer] = peer
    return peer


def _resume(state: State, peer: Peer) -> None:
    """Says again what a peer may have missed while its stream was broken."""
    change = state.change
    if change is None or peer.id not in change.waiting:
        return
    if change.phase is Phase.FENCE:
        state.send(peer, Fence(attempt=state.attempt, kind=change.kind))
    elif peer.id not in change.withheld:
        state.send(peer, install_message(state))


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
    return _refusal_of_island(state, message.island, message.peer)


def _refusal_of_known(state: State, message: Register, known: Peer) -> str:
    if known.info.island != message.island:
        return (
            f"this peer id belongs to island '{known.info.island}'; "
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


def _refusal_of_island(state: State, island: str, peer: PeerId) -> str:
    twin = next((p for p in state.peers.values() if p.info.island == island), None)
    if twin is None:
        return ""
    suspected = any(twin.id in pair for pair in state.severed)
    if twin.stream is not None and not suspected:
        return (
            f"island '{island}' is already running; give every island a name of its own, "
            "or wait until the other one has left"
        )
    state.lose(twin, Departure.CRASHED, "its island was started again")
    return ""
