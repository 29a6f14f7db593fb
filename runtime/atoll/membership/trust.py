"""Who belongs to the job, as far as the coordinator remembers it: tokens are used once, what was
revoked stays so. docs/security.md.
"""

from __future__ import annotations

from atoll.membership.events import Redeem, Revoke
from atoll.membership.messages import Departure
from atoll.membership.state import State

KEPT_AFTER_S = 3600.0
"""A used token is remembered for so long after it has expired: clocks differ."""


def redeem(state: State, event: Redeem) -> None:
    """The first key that comes with a token gets it; who comes again with that key does so, too,
    for its answer may have been lost."""
    if event.token not in state.used_tokens:
        state.used_tokens[event.token] = (event.expires_s, event.key)
        state.dirty = True
    end = event.unix_s - KEPT_AFTER_S
    for token, (expires_s, _) in list(state.used_tokens.items()):
        if expires_s < end:
            del state.used_tokens[token]


def revoke(state: State, event: Revoke) -> None:
    """Certificates and tokens of that name that were made until now are void, and who is there with
    one is put out. A new token may bring the island back."""
    if event.unix_s > state.revoked.get(event.name, 0.0):
        state.revoked[event.name] = event.unix_s
        state.dirty = True
    message = f"its certificate ('{event.name}') was revoked"
    state.tell("revoked", f"certificates and tokens of '{event.name}' made until now are void")
    for peer in list(state.peers.values()):
        if peer.id in state.peers and peer.info.island in event.islands:
            state.lose(peer, Departure.REVOKED, message)
