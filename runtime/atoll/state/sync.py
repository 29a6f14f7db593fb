"""How a peer comes by the shared state before its first op (docs/design.md 4.3).

Outside: fetch what is current, say Ready. Inside: hold the very state from which the view starts,
compared by its manifest, and fetched again only if an op was committed in between. The members
cannot pass that op without this peer, so the second fetch never chases a moving target.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from atoll import errors
from atoll.state.fetch import ChunkFetch, Request
from atoll.state.manifest import MAX_MANIFEST_BYTES, Manifest, bytes_of, decode, digest, majority

if TYPE_CHECKING:
    import torch

    from atoll.control.membership import Membership
    from atoll.engine import Collectives, Handle
    from atoll.membership.messages import PeerId

logger = logging.getLogger(__name__)

_RETRY_S = 0.02
"""A donor that has not applied the last op yet will have in a moment."""

_REQUEST_TIMEOUT_S = 60.0
"""One chunk of 8 MiB at 1.1 Mbit/s; a slower donor is not asked again."""


class ControlFace(Protocol):
    """The part of the control client that this module needs."""

    def membership(self) -> Membership: ...
    def wait(self, predicate: Callable[[Membership], bool], timeout_s: float) -> Membership: ...
    def ready(self) -> None: ...
    def holding(self, epoch: int | None = None) -> None: ...


class SharedState(Protocol):
    """What a method shares. Called by the user's thread only."""

    channel: int

    def seed(self, revision: int, members: tuple[PeerId, ...]) -> None:
        """This peer's own state becomes everybody's: the members start from it."""

    def targets(self, manifest: Manifest) -> list[torch.Tensor]:
        """Where the tensors are to be received (uint8). Raises MismatchError when the manifest
        is not that of the same model and method."""

    def adopt(self, manifest: Manifest) -> None:
        """The targets are filled: this is the state now."""

    def publish(self) -> None:
        """Serve the present state to joiners."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What this peer holds; `manifest` is empty for a state that began here."""

    revision: int
    manifest: bytes


def attach(
    client: ControlFace, collectives: Collectives, shared: SharedState, *, timeout_s: float
) -> None:
    """Makes this peer a member that holds the shared state, and is known to.

    Raises CannotJoin, StateUnavailable, MismatchError or DeadlineExceeded.
    """
    end = time.monotonic() + timeout_s
    membership = client.wait(_knows_its_donors, timeout_s)
    held: Held | None = None
    if not membership.member and membership.donors:
        held = _fetch_current(client, collectives, shared, end)
    client.ready()
    while True:
        membership = _wait_for_view(client, end)
        confirmed = _confirm(collectives, shared, membership, held, end)
        if confirmed is None:
            _pause(client, membership, end)
            continue
        held = confirmed
        shared.publish()
        client.holding(membership.view.epoch)
        # The coordinator does not count a state that was lost since: the next view then has other
        # holders, and this peer must take theirs.
        now = client.wait(_settled_since(membership), max(0.0, end - time.monotonic()))
        if now.peer in now.donors or now.peer in now.holders:
            return


def _confirm(
    collectives: Collectives,
    shared: SharedState,
    membership: Membership,
    held: Held | None,
    end: float,
) -> Held | None:
    """Holds what the view starts from: its holders' state, to the byte; None: not yet."""
    needed = membership.starts.get(shared.channel, 0)
    if membership.peer not in membership.holders:
        return _fetch(collectives, shared, _donors(membership), needed, held, end)
    if held is not None and held.revision == needed:
        return held
    if needed > 0 or held is not None:
        logger.error("no holder of the state is left; starting from this island's own")
    shared.seed(needed, membership.view.ids)
    return Held(revision=needed, manifest=b"")


def _settled_since(before: Membership) -> Callable[[Membership], bool]:
    return lambda now: now.peer in now.donors or now.view.epoch != before.view.epoch


def _knows_its_donors(membership: Membership) -> bool:
    listed = any(peer.id == membership.peer for peer in membership.peers)
    reachable = not membership.donors or bool(membership.donors & membership.linked)
    return membership.member or (listed and reachable)


def _wait_for_view(client: ControlFace, end: float) -> Membership:
    try:
        return client.wait(lambda membership: membership.member, max(0.0, end - time.monotonic()))
    except errors.DeadlineExceeded:
        seen = len(client.membership().peers)
        raise errors.CannotJoin(
            f"not in the view in time; the coordinator sees {seen} islands, perhaps fewer than "
            "min_islands, or islands that cannot reach one another"
        ) from None


def _donors(membership: Membership) -> frozenset[PeerId]:
    holders = membership.holders if membership.member else membership.donors
    return (holders & membership.linked) - {membership.peer}


def _pause(client: ControlFace, before: Membership, end: float) -> None:
    if time.monotonic() > end:
        raise errors.StateUnavailable("no donor served the shared state in time")
    with contextlib.suppress(errors.DeadlineExceeded):
        client.wait(lambda now: now is not before and now != before, _RETRY_S)


def _fetch_current(
    client: ControlFace, collectives: Collectives, shared: SharedState, end: float
) -> Held | None:
    """What was fetched, or None when there are no donors any more."""
    while True:
        membership = client.membership()
        if membership.member or not membership.donors:
            return None
        held = _fetch(collectives, shared, _donors(membership), None, None, end)
        if held is not None:
            return held
        _pause(client, membership, end)


def _fetch(
    collectives: Collectives,
    shared: SharedState,
    donors: frozenset[PeerId],
    revision: int | None,
    held: Held | None,
    end: float,
) -> Held | None:
    """Fetches one revision from these donors, unless it is `held`; None: they do not serve it."""
    found = _manifests(collectives, donors, revision, end)
    chosen = majority(list(found.values()))
    if chosen is None:
        return None
    manifest = decode(chosen)
    if revision is not None and manifest.revision != revision:
        return None
    if held is not None and held.manifest == chosen:
        return held
    targets = shared.targets(manifest)
    chunk_fetch = ChunkFetch(manifest, [peer for peer, data in found.items() if data == chosen])
    if not _run(collectives, chunk_fetch, targets, manifest.revision, end):
        return None
    shared.adopt(manifest)
    return Held(revision=manifest.revision, manifest=chosen)


def _manifests(
    collectives: Collectives, donors: frozenset[PeerId], revision: int | None, end: float
) -> dict[PeerId, bytes]:
    import torch

    asked = []
    for donor in sorted(donors):
        target = torch.empty(MAX_MANIFEST_BYTES, dtype=torch.uint8)
        handle = collectives.fetch(
            donor, revision=revision, buffer=0, offset=0, target=target, timeout_s=_left(end)
        )
        asked.append((donor, target, handle))
    found = {}
    for donor, target, handle in asked:
        length = _length(handle)
        if length is None:
            continue
        data = bytes(target[:length].numpy())
        try:
            decode(data)
        except ValueError as error:
            logger.warning("donor %s serves no state: %s", donor.hex()[:8], error)
            continue
        found[donor] = data
    return found


def _length(handle: Handle) -> int | None:
    try:
        return handle.wait().sequence
    except (errors.StateUnavailable, errors.PeerLost, errors.DeadlineExceeded):
        return None


def _run(
    collectives: Collectives,
    chunk_fetch: ChunkFetch,
    targets: list[torch.Tensor],
    revision: int,
    end: float,
) -> bool:
    """Drives the fetch to its end: True when every chunk is there."""
    under_way: list[tuple[Request, torch.Tensor, Handle]] = []
    while not chunk_fetch.complete:
        for request in chunk_fetch.take():
            chunk = request.chunk
            target = targets[chunk.tensor][chunk.offset : chunk.offset + chunk.length]
            handle = collectives.fetch(
                request.donor,
                revision=revision,
                buffer=chunk.tensor + 1,
                offset=chunk.offset,
                target=target,
                timeout_s=_left(end),
            )
            under_way.append((request, target, handle))
        if not under_way:
            return False
        request, target, handle = under_way.pop(0)
        try:
            handle.wait()
        except (errors.StateUnavailable, errors.PeerLost, errors.DeadlineExceeded):
            chunk_fetch.failed(request)
            continue
        if not chunk_fetch.arrived(request, digest(bytes_of(target))):
            logger.warning("donor %s served a corrupt chunk", request.donor.hex()[:8])
    return True


def _left(end: float) -> float:
    return max(0.001, min(_REQUEST_TIMEOUT_S, end - time.monotonic()))
