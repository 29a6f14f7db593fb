"""How a peer comes by the shared state before its first op, and when its own is wrong
(docs/design.md 4.3).

Outside: fetch what is current, say Ready. Inside: hold the very state from which the view starts,
compared by its manifest, and fetched again only if an op was committed in between. The members
cannot pass that op without this peer, so the second fetch never chases a moving target. The same
holds for a member whose state is wrong: until it takes part in the next op, which it does when it
is healed, the others serve the state from just before that op.

Thread: the user's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from atoll import errors
from atoll.state.transfer import Fetched, Receiver, fetch

if TYPE_CHECKING:
    from atoll.collectives.in_flight import Collectives
    from atoll.control.membership import Membership
    from atoll.membership.messages import PeerId
    from atoll.state.manifest import Manifest

logger = logging.getLogger(__name__)

_RETRY_S = 0.02
"""A donor that has not applied the last op yet will have in a moment."""


class ControlFace(Protocol):
    """The part of the control client that this module needs."""

    def membership(self) -> Membership: ...
    def wait(self, predicate: Callable[[Membership], bool], timeout_s: float) -> Membership: ...
    def ready(self) -> None: ...
    def holding(self, epoch: int | None = None) -> None: ...


class SharedState(Receiver, Protocol):
    """What a method shares. Called by the user's thread only."""

    channel: int

    def seed(self, revision: int, members: tuple[PeerId, ...]) -> None:
        """This peer's state becomes everybody's: the members start from it, whether it is this
        island's own, was fetched before its donors were lost, or comes from a checkpoint."""

    def adopt(self, manifest: Manifest) -> None:
        """The targets are filled: this is the state now."""

    def publish(self) -> None:
        """Serve the present state to joiners."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What this peer holds; `manifest` is empty for a state that began here."""

    revision: int
    manifest: bytes


class StateSync:
    """Brings one method's shared state to this peer."""

    def __init__(
        self,
        client: ControlFace,
        collectives: Collectives,
        shared: SharedState,
        *,
        observe: Callable[[Fetched], None] = lambda fetched: None,
    ) -> None:
        """`observe` is told of every fetch that came to its end."""
        self._client = client
        self._collectives = collectives
        self._shared = shared
        self._observe = observe
        self._asked: Membership | None = None
        self._missing: tuple[frozenset[PeerId], frozenset[PeerId]] = (frozenset(), frozenset())

    def attach(self, *, timeout_s: float, restore: Callable[[], bool] = lambda: False) -> None:
        """Makes this peer a member that holds the shared state, and is known to.

        restore: called when the members are to start from this peer's own state, before they do;
        brings a checkpoint of the job into the state and returns True, if one is newer.
        Raises CannotJoin, StateUnavailable, MismatchError or DeadlineExceeded, and what `restore`
        does.
        """
        end = time.monotonic() + timeout_s
        client = self._client
        membership = client.wait(_knows_its_donors, timeout_s)
        held: Held | None = None
        if not membership.member and membership.donors:
            held = self._fetch_current(end)
        client.ready()
        while True:
            membership = _wait_for_view(client, end)
            confirmed = self._confirm(membership, held, end, restore)
            if confirmed is None:
                self._pause(membership, end)
                continue
            held = confirmed
            self._shared.publish()
            client.holding(membership.view.epoch)
            # The coordinator does not count a state that was lost since: the next view then has
            # other holders, and this peer must take theirs.
            now = client.wait(_settled_since(membership), max(0.0, end - time.monotonic()))
            if now.peer in now.donors or now.peer in now.holders:
                return

    def heal(self, revision: int, donors: frozenset[PeerId], *, timeout_s: float) -> Fetched | None:
        """Takes the state of `donors` at `revision`, the one before the channel's next op.

        None when none of them is left, or they did not serve it in time. Raises what ended the
        session, and MismatchError.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            membership = self._client.membership()
            left = donors & membership.linked & frozenset(membership.view.ids)
            if not left:
                return None
            fetched = self._fetch(left, revision, b"", end)
            if isinstance(fetched, Fetched):
                return fetched
            with contextlib.suppress(errors.StateUnavailable):
                self._pause(membership, end)
        return None

    def missing(self) -> tuple[frozenset[PeerId], frozenset[PeerId]]:
        """Who has not got the state: of the view, whom the channel's next op waits for; and of
        those who listen outside of it."""
        now = self._client.membership()
        if now is not self._asked:  # a snapshot that is never written to
            inside = frozenset(now.view.ids)
            outside = frozenset(peer.id for peer in now.peers) - inside
            self._asked, self._missing = now, (inside - now.donors - {now.peer}, outside)
        return self._missing

    # --- within -----------------------------------------------------------------------------------

    def _confirm(
        self, membership: Membership, held: Held | None, end: float, restore: Callable[[], bool]
    ) -> Held | None:
        """Holds what the view starts from: its holders' state, to the byte; None: not yet."""
        needed = membership.starts.get(self._shared.channel, 0)
        if membership.peer not in membership.holders:
            return self._held(_donors(membership), needed, held, end)
        if held is not None and held.revision == needed:
            return held
        if not restore() and (needed > 0 or held is not None):
            logger.error("no holder of the state is left; starting from what this island has")
        self._shared.seed(needed, membership.view.ids)
        return Held(revision=needed, manifest=b"")

    def _fetch_current(self, end: float) -> Held | None:
        """What was fetched, or None when there are no donors any more."""
        while True:
            membership = self._client.membership()
            if membership.member or not membership.donors:
                return None
            held = self._held(_donors(membership), None, None, end)
            if held is not None:
                return held
            self._pause(membership, end)

    def _held(
        self, donors: frozenset[PeerId], revision: int | None, held: Held | None, end: float
    ) -> Held | None:
        """What is held after fetching from these donors, unless it is `held`; None: they do not
        serve it."""
        fetched = self._fetch(donors, revision, b"" if held is None else held.manifest, end)
        if not isinstance(fetched, Fetched):
            return None if fetched is None else held
        return Held(revision=fetched.manifest.revision, manifest=fetched.encoded)

    def _fetch(
        self, donors: frozenset[PeerId], revision: int | None, unless: bytes, end: float
    ) -> Fetched | bytes | None:
        fetched = fetch(
            self._collectives, self._shared, donors, revision=revision, unless=unless, end=end
        )
        if isinstance(fetched, Fetched):
            self._shared.adopt(fetched.manifest)
            logger.info("shared state: %s", fetched)
            self._observe(fetched)
        return fetched

    def _pause(self, before: Membership, end: float) -> None:
        if time.monotonic() > end:
            raise errors.StateUnavailable("no donor served the shared state in time")
        with contextlib.suppress(errors.DeadlineExceeded):
            self._client.wait(lambda now: now is not before and now != before, _RETRY_S)


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
