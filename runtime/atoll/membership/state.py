"""What the coordinator knows. `registration` and `view_change` work on it."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from atoll.membership.events import (
    Close,
    CoordinatorAction,
    CoordinatorOptions,
    JobEvent,
    Send,
    Snapshot,
    Tell,
)
from atoll.membership.messages import (
    ChangeKind,
    CoordinatorMessage,
    Departure,
    Expelled,
    Fenced,
    PeerId,
    PeerInfo,
    Peers,
    Report,
    StopNotice,
    View,
)
from atoll.membership.starts import Issued

KEPT_EVENTS = 10_000
COMPLETE = "the job is complete; start a new one to train more"
KEPT_DEPARTURES = 1_000
"""So that a peer which comes back late is told what happened to it."""


@dataclass(slots=True, kw_only=True)
class Peer:
    """A registered peer, until it departs."""

    info: PeerInfo
    stream: int | None
    heard_s: float
    lost_s: float | None = None  # since when its stream is broken
    listening_s: float | None = None
    ready: bool = False
    leaving: Departure | None = None
    installed_epoch: int = 0
    linked: frozenset[PeerId] | None = None  # None: it has not said since it (re)connected
    accused: dict[PeerId, tuple[Departure, str]] = field(default_factory=dict)
    report: Report | None = None

    @property
    def id(self) -> PeerId:
        return self.info.id

    def misses(self, other: PeerId) -> bool:
        return self.linked is not None and other not in self.linked

    def has_link(self, other: PeerId) -> bool:
        return self.linked is not None and other in self.linked


class Phase(enum.Enum):
    FENCE = "fence"
    INSTALL = "install"


@dataclass(slots=True, kw_only=True)
class Change:
    """A change of view under way."""

    kind: ChangeKind
    phase: Phase
    since_s: float
    waiting: set[PeerId]  # those whose Fenced, then Installed, is still due
    answers: dict[PeerId, Fenced] = field(default_factory=dict)
    withheld: set[PeerId] = field(default_factory=set)  # joiners that get their Install later
    without: frozenset[PeerId] = frozenset()  # leavers that an abort leaves behind


class State:
    """The coordinator's knowledge, and the actions that the present event has caused so far."""

    def __init__(
        self, options: CoordinatorOptions, secret: bytes, snapshot: Snapshot | None
    ) -> None:
        self.options = options
        self.secret = secret
        self.now_s = 0.0
        self.peers: dict[PeerId, Peer] = {}
        self.streams: dict[int, PeerId] = {}
        self.ended_streams: set[int] = set()
        self.departed: OrderedDict[PeerId, tuple[Departure, str]] = OrderedDict()
        self.departures: Counter[str] = Counter()
        self.view_changes: Counter[str] = Counter()
        self.events: deque[JobEvent] = deque(maxlen=KEPT_EVENTS)
        self.next_event = 1
        self.next_order = 1
        self.attempt = 0
        self.issued: list[Issued] = [Issued(view=View(), kind=ChangeKind.ABORT)]
        self.holders: frozenset[PeerId] = frozenset()
        self.state_epoch = 0  # the view in which the shared state began
        self.change: Change | None = None
        self.broken = False  # only an abort can mend the newest view
        self.severed: dict[tuple[PeerId, PeerId], float] = {}  # since when two members miss a link
        self.form_since_s: float | None = None
        self.form_changed_s = 0.0
        self.form_seen: frozenset[PeerId] = frozenset()
        self.stopping = ""
        self.trained = False  # some round has committed
        self.complete = False  # the last members finished: there is nothing left to join
        self.dirty = False
        self.peers_changed = False
        self.actions: list[CoordinatorAction] = []
        if snapshot is not None:
            self._restore(snapshot)

    def _restore(self, snapshot: Snapshot) -> None:
        self.secret = snapshot.secret
        self.next_order = snapshot.next_order
        self.attempt = snapshot.attempt
        self.issued = list(snapshot.issued)
        self.holders = snapshot.holders
        self.state_epoch = snapshot.state_epoch
        self.complete = snapshot.complete
        # Somebody may be frozen by a fence that nobody remembers: begin the change again.
        self.broken = snapshot.pending
        for info in snapshot.peers:
            # Their grace begins with the first call, which sets the clock.
            self.peers[info.id] = Peer(info=info, stream=None, heard_s=0.0, lost_s=0.0)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            job=self.options.job,
            secret=self.secret,
            next_order=self.next_order,
            attempt=self.attempt,
            pending=self.change is not None or self.broken,
            issued=tuple(self.issued),
            holders=self.holders,
            state_epoch=self.state_epoch,
            complete=self.complete,
            peers=tuple(peer.info for peer in self.peers.values()),
        )

    # --- views ------------------------------------------------------------------------------------

    @property
    def newest(self) -> Issued:
        return self.issued[-1]

    def alive(self, ids: Iterable[PeerId]) -> list[Peer]:
        return [self.peers[peer] for peer in ids if peer in self.peers]

    def members(self) -> list[Peer]:
        """Those members of the newest view that are still there, oldest first."""
        return self.alive(self.newest.view.ids)

    def members_of(self, epoch: int) -> tuple[PeerId, ...]:
        return next((i.view.ids for i in self.issued if i.view.epoch == epoch), ())

    def is_member(self, peer: PeerId) -> bool:
        return peer in self.newest.view.ids

    def outgoing(self) -> list[Peer]:
        """Leavers that the newest view does not hold, but that have not left yet."""
        before = [peer for entry in self.issued[:-1] for peer in entry.view.ids]
        return [p for p in self.alive(dict.fromkeys(before)) if not self.is_member(p.id)]

    def update_severed(self) -> None:
        """Notes which members of the newest view miss a link with one another."""
        members = self.members()
        found = {}
        for position, one in enumerate(members):
            for other in members[position + 1 :]:
                if one.misses(other.id) or other.misses(one.id):
                    pair = (one.id, other.id)
                    found[pair] = self.severed.get(pair, self.now_s)
        self.severed = found

    # --- saying things ----------------------------------------------------------------------------

    def send(self, peer: Peer, message: CoordinatorMessage) -> None:
        if peer.stream is not None:
            self.actions.append(Send(stream=peer.stream, message=message))

    def close(self, stream: int, last_word: CoordinatorMessage | None = None) -> None:
        """Ends a stream; what it may still say is not heard."""
        self.streams.pop(stream, None)
        self.ended_streams.add(stream)
        if last_word is not None:
            self.actions.append(Send(stream=stream, message=last_word))
        self.actions.append(Close(stream=stream))

    def tell(
        self,
        kind: str,
        message: str,
        *,
        peer: PeerInfo | None = None,
        round: int = 0,
        loss: float = float("nan"),
        departure: Departure | None = None,
    ) -> None:
        event = JobEvent(
            number=self.next_event,
            at_s=self.now_s,
            kind=kind,
            message=message,
            island=peer.island if peer else "",
            peer=peer.id if peer else b"",
            epoch=self.newest.view.epoch,
            round=round,
            loss=loss,
            departure=departure,
        )
        self.next_event += 1
        self.events.append(event)
        self.actions.append(Tell(event=event))

    def broadcast_peers(self) -> None:
        listening = [p for p in self.peers.values() if p.listening_s is not None]
        infos = tuple(sorted((p.info for p in listening), key=lambda info: info.order))
        message = Peers(peers=infos, holders=self.holders & self.peers.keys())
        for peer in listening:
            self.send(peer, message)

    def set_info(self, peer: Peer, **changes: object) -> None:
        peer.info = replace(peer.info, **changes)  # type: ignore[arg-type]
        self.dirty = True

    # --- departures -------------------------------------------------------------------------------

    def depart(self, peer: Peer, reason: Departure, message: str, *, expel: bool = False) -> None:
        """Forgets a peer. Whether the view must change is for the caller to say."""
        del self.peers[peer.id]
        self.departed[peer.id] = (reason, message)
        if len(self.departed) > KEPT_DEPARTURES:
            self.departed.popitem(last=False)
        self.departures[reason.value] += 1
        if peer.stream is not None:
            if expel:
                self.close(peer.stream, Expelled(reason=reason, message=message))
            else:
                self.streams.pop(peer.stream, None)
                self.ended_streams.add(peer.stream)
        if self.change is not None:
            self.change.waiting.discard(peer.id)
            self.change.withheld.discard(peer.id)
            self.change.answers.pop(peer.id, None)
        self.dirty = self.peers_changed = True
        text = f"{peer.info.island} left ({reason.value}): {message}"
        self.tell("left", text, peer=peer.info, departure=reason)
        if reason is Departure.FINISHED and self.trained and not self.stopping:
            self._complete_if_all_left()

    def _complete_if_all_left(self) -> None:
        """The last member has finished a job that trained: whoever still waits would begin anew."""
        if self.complete or self.members() or self.outgoing():
            return
        self.complete = True
        for peer in list(self.peers.values()):
            if peer.stream is not None:
                self.close(peer.stream, StopNotice(message=COMPLETE))
                peer.stream = None
            self.depart(peer, Departure.STOPPED, COMPLETE)

    def lose(self, peer: Peer, reason: Departure, message: str) -> None:
        """A peer is lost against its will: members go on without it by an abort."""
        concerned = self.is_member(peer.id) or any(peer is p for p in self.outgoing())
        self.depart(peer, reason, message, expel=True)
        if concerned:
            self.broken = True

    def counters(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        return dict(self.view_changes), dict(self.departures)
