"""What the coordinator knows. `registration` and `view_change` work on it."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from atoll.membership.events import (
    Close,
    CoordinatorAction,
    CoordinatorOptions,
    End,
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
    LinkFigures,
    PeerId,
    PeerInfo,
    Peers,
    StopNotice,
    View,
)
from atoll.membership.places import SPARE, Places, each
from atoll.membership.records import Change, Ends, Island, Peer, Relays, Roll
from atoll.membership.starts import Issued

if TYPE_CHECKING:
    from atoll.membership.measuring import Measurement

KEPT_EVENTS = 10_000
SKIPPED_EVENTS = 1_000_000
"""By a restart: more than are told between two snapshots."""
COMPLETE = "the job is complete; start a new one to train more"
KEPT_ISLANDS = 1_000
KEPT_DEPARTURES = 1_000
"""So that a peer which comes back late is told what happened to it."""


class State:
    """The coordinator's knowledge, and the actions that the present event has caused so far."""

    def __init__(
        self, options: CoordinatorOptions, secret: bytes, snapshot: Snapshot | None
    ) -> None:
        self.options = options
        self.secret = secret
        self.now_s = 0.0
        self.peers: dict[PeerId, Peer] = {}
        self.islands: dict[str, Island] = {}  # of those peers
        self.watched: set[str] = set()  # islands of which a part is missing or leaves
        self.shards = 0  # of every island; 0: nobody has said
        # Newcomers of an issued view that were never told of it, and wait for a later one.
        self.held_back: frozenset[PeerId] = frozenset()
        self.listed: list[Peers] = []  # what was told last of who listens, by ring
        self.uninformed: set[PeerId] = set()  # peers on a new stream that were told nothing yet
        self.places = Places()
        self.roll = Roll()
        self.gone = False  # some member of the newest view is not there any more
        self.parting: set[str] = set()  # islands of which some peer leaves or has departed
        self.outsiders: set[str] = set()  # islands of which some peer is no member
        self.kept_out: dict[str, Island] = {}  # by newcomer: a member that has no link with it
        self.due_s = -math.inf  # nobody's patience is over before that
        self.streams: dict[int, PeerId] = {}
        self.ended_streams: set[int] = set()
        self.departed: OrderedDict[PeerId, tuple[Departure, str]] = OrderedDict()
        self.departures: Counter[str] = Counter()
        self.ends = Ends()
        self.view_changes: Counter[str] = Counter()
        self.events: deque[JobEvent] = deque(maxlen=KEPT_EVENTS)
        self.next_event = 1
        self.names: dict[str, None] = {}  # that members have had, the latest last
        self.next_order = 1
        self.attempt = 0
        self.issued: list[Issued] = [Issued(view=View(), kind=ChangeKind.ABORT)]
        self.holders: frozenset[PeerId] = frozenset()
        self.state_epoch = 0  # the view in which the shared state began
        self.change: Change | None = None
        self.broken = False  # only an abort can mend the newest view
        self.severed: dict[tuple[PeerId, PeerId], float] = {}  # since when two members miss a link
        self.lacking: dict[PeerId, int] = {}  # whom a member of the newest view misses: bits
        self.ring_bits: tuple[int, ...] | None = None  # members that are there, by ring
        self.links_of: set[PeerId] | None = None  # of whom links changed since; None: of anybody
        self.form_since_s: float | None = None
        self.form_look_s = 0.0
        self.list_s = 0.0
        self.form_changed_s = 0.0
        self.form_seen: frozenset[PeerId] = frozenset()
        self.stopping = ""
        self.trained = False  # some round has committed
        self.complete = False  # the last members finished: there is nothing left to join
        self.used_tokens: dict[str, tuple[float, str]] = {}
        self.revoked: dict[str, float] = {}
        # What was measured of links, who has taken part, and what is under way.
        self.figures: dict[tuple[PeerId, PeerId], LinkFigures] = {}
        self.figures_number = 0  # of their last change
        self.figures_came = False
        self.measured: set[PeerId] = set()
        self.measurement: Measurement | None = None
        self.measurements = 0
        self.measure_asked = False
        self.measured_s = self.told_s = -math.inf
        self.installed_epoch = 0  # the newest view that all members have installed, and since when
        self.settled_s = 0.0
        self.relays = Relays(() if snapshot is None else snapshot.relayed)
        self.dirty = self.peers_changed = False
        self.actions: list[CoordinatorAction] = []
        if snapshot is not None:
            self._restore(snapshot)

    def _restore(self, snapshot: Snapshot) -> None:
        self.secret = snapshot.secret
        self.next_order = snapshot.next_order
        # Whoever has watched may have seen events that were told since; no number is used twice.
        self.next_event = snapshot.next_event + SKIPPED_EVENTS
        self.attempt = snapshot.attempt
        self.issued = list(snapshot.issued)
        self.holders = snapshot.holders
        self.state_epoch = snapshot.state_epoch
        self.trained = snapshot.trained
        self.complete = snapshot.complete
        self.names = dict.fromkeys(snapshot.islands)
        self.shards = snapshot.shards
        self.used_tokens = dict(snapshot.used_tokens)
        self.revoked = dict(snapshot.revoked)
        # Somebody may be frozen by a fence that nobody remembers: begin the change again.
        self.broken = snapshot.pending
        for info in snapshot.peers:
            # Their grace begins with the first call, which sets the clock.
            peer = Peer(info=info, stream=None, heard_s=0.0, lost_s=0.0, restored=True)
            self.peers[info.id] = peer
            self.admit(peer)
        for end in snapshot.ends:
            self.islands[end.shard.island].end = end
            self.parting.add(end.shard.island)
        self.begin_view()
        self.held_back = snapshot.held_back

    def snapshot(self) -> Snapshot:
        return Snapshot(
            job=self.options.job,
            secret=self.secret,
            next_order=self.next_order,
            next_event=self.next_event,
            attempt=self.attempt,
            pending=self.change is not None or self.broken,
            issued=tuple(self.issued),
            holders=self.holders,
            state_epoch=self.state_epoch,
            trained=self.trained,
            complete=self.complete,
            peers=tuple(peer.info for peer in self.peers.values()),
            islands=tuple(self.names),
            shards=self.shards,
            ends=tuple(i.end for i in self.islands.values() if i.end is not None),
            held_back=self.held_back,
            used_tokens=dict(self.used_tokens),
            revoked=dict(self.revoked),
            relayed=self.relays.all,
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

    def ring(self, shard: int) -> list[Peer]:
        """Those members of the newest view that have this shard index."""
        return [peer for peer in self.members() if peer.info.shard == shard]

    def member_islands(self) -> list[Island]:
        """Islands of the newest view of which at least a part is still there, oldest first."""
        names = dict.fromkeys(peer.info.island for peer in self.members())
        return [self.islands[name] for name in names]

    def members_of(self, epoch: int) -> tuple[PeerId, ...]:
        return next((i.view.ids for i in self.issued if i.view.epoch == epoch), ())

    def is_member(self, peer: PeerId) -> bool:
        return peer in self.roll.of(self.newest.view).ids

    def outgoing(self) -> list[Peer]:
        """Leavers that the newest view does not hold, but that have not left yet."""
        before = [peer for entry in self.issued[:-1] for peer in entry.view.ids]
        found = self.alive(dict.fromkeys(before))
        return [p for p in found if not self.is_member(p.id) and p.id not in self.held_back]

    def begin_view(self) -> None:
        """Whatever was found out about the view before does not count."""
        self._forget_links()
        self.gone = any(info.id not in self.peers for info in self.newest.view.members)
        self.kept_out.clear()
        self.look_at_all(self.now_s)
        self.outsiders = {
            peer.info.island for peer in self.peers.values() if not self.is_member(peer.id)
        }

    def look_at_all(self, at_s: float) -> None:
        """Then somebody's time may be over."""
        self.due_s = min(self.due_s, at_s)

    def _forget_links(self) -> None:
        self.links_of = self.ring_bits = None

    def set_linked(self, peer: Peer, linked: int | None) -> None:
        """`linked`: bits."""
        peer.linked = linked
        if self.links_of is not None:
            self.links_of.add(peer.id)

    def update_severed(self) -> None:
        """Notes which members of the newest view miss a link with one another."""
        if self.links_of is not None and not self.links_of:
            return
        changed, self.links_of = self.links_of, set()
        if changed is not None and not any(
            self.lacking.get(peer, 0) != self.lacks(self.peers.get(peer)) for peer in changed
        ):
            return
        rings = [self.ring(shard) for shard in range(self.shards)]
        found = {}
        self.lacking = {}
        for ring in rings:
            by_bit = {peer.bit: (rank, peer) for rank, peer in enumerate(ring)}
            pairs = set()
            for rank, peer in enumerate(ring):
                lacks = self.lacks(peer)
                if lacks:
                    self.lacking[peer.id] = lacks
                for bit in each(lacks):
                    other = by_bit[bit][0]
                    pairs.add((min(rank, other), max(rank, other)))
            for one, other in sorted(pairs):
                pair = (ring[one].id, ring[other].id)
                found[pair] = self.severed.get(pair, self.now_s)
        self.severed = found

    def lacks(self, peer: Peer | None) -> int:
        """Members of its ring with which a member says it has no link: bits."""
        if peer is None or peer.linked is None or not self.is_member(peer.id):
            return 0
        if self.ring_bits is None:
            rings: list[list[PeerId]] = [[] for _ in range(self.shards)]
            for member in self.members():
                rings[member.info.shard].append(member.id)
            self.ring_bits = tuple(self.places.bits(ring) for ring in rings)
        return self.ring_bits[peer.info.shard] & ~(peer.linked | peer.bit)

    def remember_island(self, name: str) -> None:
        """A newcomer is not to take the name of one that is only away."""
        self.names.pop(name, None)
        self.names[name] = None
        if len(self.names) > KEPT_ISLANDS:
            del self.names[next(iter(self.names))]

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
        # Those that have yet to come back listen all the while: to leave them out would end links.
        listening = [
            p
            for p in self.peers.values()
            if p.listening_s is not None or (p.restored and p.info.endpoints)
        ]
        self.uninformed.clear()
        self.listed = []
        for shard in range(self.shards):
            ring = [peer for peer in listening if peer.info.shard == shard]
            infos = tuple(sorted((p.info for p in ring), key=lambda info: info.order))
            holders = frozenset(p.id for p in ring if p.id in self.holders)
            message = Peers(peers=infos, holders=holders, relayed=self.relays.among(infos))
            self.listed.append(message)
            for peer in ring:
                self.send(peer, message)

    def inform(self) -> None:
        """Tells those who are on a new stream what the others know."""
        for peer_id in sorted(self.uninformed):
            peer = self.peers.get(peer_id)
            if peer is not None and peer.info.shard < len(self.listed):
                self.send(peer, self.listed[peer.info.shard])
        self.uninformed.clear()

    def set_info(self, peer: Peer, **changes: object) -> None:
        peer.info = replace(peer.info, **changes)  # type: ignore[arg-type]
        self.dirty = True

    # --- coming and going -------------------------------------------------------------------------

    def admit(self, peer: Peer) -> None:
        """Counts a registered peer among its island."""
        name = peer.info.island
        peer.bit = self.places.admit(peer.id)
        if self.is_member(peer.id):
            self._forget_links()
        else:
            self.outsiders.add(name)
        if len(self.places) > 2 * len(self.peers) + SPARE:
            self.places.forget(self.peers, (p.linked or 0 for p in self.peers.values()))
        island = self.islands.setdefault(name, Island(name=name, since_s=self.now_s))
        island.peers[peer.info.shard] = peer
        island.complete = len(island.peers) == self.shards
        if self.shards > 1:
            self.watched.add(name)

    def depart(self, peer: Peer, reason: Departure, message: str, *, expel: bool = False) -> None:
        """Forgets a peer. Whether the view must change is for the caller to say, and what becomes
        of the rest of its island is for `islands`."""
        del self.peers[peer.id]
        self._forget_links()
        self.gone = self.gone or self.is_member(peer.id)
        self.figures = {pair: f for pair, f in self.figures.items() if peer.id not in pair}
        self.measured.discard(peer.id)
        self.held_back -= {peer.id}
        if self.measurement is not None:
            self.measurement.waiting.discard(peer.id)
        self.departed[peer.id] = (reason, message)
        if len(self.departed) > KEPT_DEPARTURES:
            self.departed.popitem(last=False)
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
        self._take_out(peer, reason, message)

    def _take_out(self, peer: Peer, reason: Departure, message: str) -> None:
        """An island has left when its last shard has, for the reason that the first one had."""
        island = self.islands[peer.info.island]
        del island.peers[peer.info.shard]
        if island.leaving_s is None:
            island.leaving_s = self.now_s
        if island.end is None:
            island.end = self._end_of(island, peer, reason, message)
        if island.peers:
            self.watched.add(island.name)
            self.parting.add(island.name)
            return
        del self.islands[island.name]
        self.parting.discard(island.name)
        self.outsiders.discard(island.name)
        self.kept_out.pop(island.name, None)
        if not self.peers and not self.newest.view.epoch:
            self.shards = 0  # whoever comes next says how many
        reason = island.end.reason
        self.departures[reason.value] += 1
        self.ends.note(island.name, reason, island.end.message, self.now_s)
        text = f"{island.name} left ({reason.value}): {island.end.message}"
        self.tell("left", text, peer=island.end.shard, departure=reason)
        if reason is Departure.FINISHED and self.trained and not self.stopping:
            self._complete_if_all_left()

    def _end_of(self, island: Island, peer: Peer, reason: Departure, message: str) -> End:
        """`peer` is the first to go, but who wanted to may still have something to finish."""
        if reason is Departure.SHARD_LOST:
            for other in island.peers.values():
                if other.leaving and other.leaving is not Departure.SHARD_LOST:
                    peer, reason, message = other, other.leaving, "it leaves"
        which = f"shard {peer.info.shard}: " if self.shards > 1 else ""
        return End(reason=reason, message=which + message, shard=peer.info)

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
        """A peer is lost against its will, and its island with it: members go on without them by an
        abort."""
        others = [p for p in self.islands[peer.info.island].peers.values() if p is not peer]
        island = {p.id for p in (peer, *others)}
        concerned = any(self.is_member(p) for p in island) or any(
            p.id in island for p in self.outgoing()
        )
        self.depart(peer, reason, message, expel=True)
        said = f"shard {peer.info.shard} of this island was lost ({reason.value}): {message}"
        for other in others:
            self.depart(other, Departure.SHARD_LOST, said, expel=True)
        if concerned:
            self.broken = True

    def counters(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        return dict(self.view_changes), dict(self.departures)
