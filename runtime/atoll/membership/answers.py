"""What members answer to a fence: how far they have come."""

from __future__ import annotations

from atoll.membership.messages import UNASKED, ChangeKind, Departure, Fenced
from atoll.membership.records import Peer, Phase
from atoll.membership.state import State


def on_fenced(state: State, peer: Peer, message: Fenced) -> None:
    change = state.change
    asked = change is not None and change.phase is Phase.FENCE
    if message.attempt == UNASKED:
        # It stays frozen until it installs a view. Were one under way to it, it would go on there.
        if message.epoch != state.newest.view.epoch:
            return
    elif not asked or message.attempt != state.attempt:
        return  # late
    if message.epoch and not any(
        entry.view.epoch == message.epoch and entry.view.members for entry in state.issued
    ):
        state.lose(peer, Departure.PROTOCOL, f"it says it has installed view {message.epoch}")
        return
    if any(not c.started >= c.done >= c.committed for c in message.progress.values()):
        state.lose(peer, Departure.PROTOCOL, "it says that more is done than started")
        return
    if message.attempt == UNASKED:
        peer.frozen = message
    if change is not None and asked and peer.id in change.waiting:
        if message.attempt == UNASKED and change.kind is not ChangeKind.ABORT:
            return
        change.waiting.discard(peer.id)
        change.answers[peer.id] = message
