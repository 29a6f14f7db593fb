"""What the coordinator knows of a peer, of an island, and of a change of view under way."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from atoll.membership.events import Departed, End
from atoll.membership.messages import (
    ChangeKind,
    Departure,
    Fenced,
    PeerId,
    PeerInfo,
    Relayed,
    Report,
    View,
)

KEPT_ENDS = 64
"""Islands that have left, for the status."""
MAKE_S = 3.0
"""Two members whose relay is gone have so long to link through another one."""
PARTED_S = 120.0
"""Two islands that have lost sight of each other are remembered for so long: more than the longest
pause before a launcher starts one again."""


@dataclass(slots=True, kw_only=True)
class Peer:
    """A registered peer, until it departs."""

    info: PeerInfo
    stream: int | None
    heard_s: float
    lost_s: float | None = None  # since when its stream is broken
    restored: bool = False  # from the store; it has not come back yet
    listening_s: float | None = None
    ready: bool = False
    leaving: Departure | None = None
    draining: str = ""  # it was asked to leave, and why
    installed_epoch: int = 0
    bit: int = 0  # in others' `linked`
    linked: int | None = None  # bits; None: it has not said since it (re)connected
    accused: dict[PeerId, tuple[Departure, str]] = field(default_factory=dict)
    report: Report | None = None
    frozen: Fenced | None = None  # what it said when it froze unasked; see on_fenced()
    held_epoch: int = 0  # the newest view whose state it has said to hold

    @property
    def id(self) -> PeerId:
        return self.info.id

    def left(self, how: str) -> str:
        """How it left, and why if somebody wanted it."""
        return f"{how}, as it was asked to: {self.draining}" if self.draining else how

    def misses(self, other: Peer) -> bool:
        return self.linked is not None and not self.linked & other.bit

    def has_link(self, other: Peer) -> bool:
        return self.linked is not None and bool(self.linked & other.bit)


@dataclass(slots=True, kw_only=True)
class Island:
    """Those peers of an island that are there, by shard."""

    name: str
    since_s: float
    peers: dict[int, Peer] = field(default_factory=dict)
    complete: bool = False  # all its shards have come; from then on it takes no other
    end: End | None = None  # why the first of them departed
    leaving_s: float | None = None  # since when some shard leaves, or has departed

    @property
    def whole(self) -> bool:
        return self.complete and self.end is None

    @property
    def order(self) -> int:
        """An island is as old as its youngest shard: before that it was none."""
        return max(peer.info.order for peer in self.peers.values())


@dataclass(frozen=True, slots=True)
class Members:
    """Of one view, for looking up."""

    view: View
    ids: frozenset[PeerId]


class Roll:
    """Remembers the members of the view that was asked about last."""

    def __init__(self) -> None:
        self._last = Members(View(), frozenset())

    def of(self, view: View) -> Members:
        if self._last.view is not view:
            self._last = Members(view, frozenset(view.ids))
        return self._last


class Ends:
    """How the islands that have left did so, each one the last time; the latest last."""

    def __init__(self) -> None:
        self.known: dict[str, Departed] = {}

    def note(self, island: str, reason: Departure, message: str, now_s: float) -> None:
        self.known.pop(island, None)
        self.known[island] = Departed(reason=reason, message=message, at_s=now_s)
        if len(self.known) > KEPT_ENDS:
            del self.known[next(iter(self.known))]


class Relays:
    """Pairs of peers, the older first, that cannot reach each other, and who relays for them."""

    def __init__(self, relayed: Iterable[Relayed]) -> None:
        self.by_pair = {(entry.one, entry.other): entry.relay for entry in relayed}
        self.said = {pair: set(pair) for pair in self.by_pair}  # who has dialled in vain
        self.failures: dict[tuple[tuple[PeerId, PeerId], PeerId], int] = {}
        self.named_s: dict[tuple[PeerId, PeerId], float] = {}  # when that relay was
        self.orphans: set[tuple[PeerId, PeerId]] = set()  # they had a relay, and want another
        # Names of islands of which one was put out as they had no link; until when it matters.
        self.parted: dict[frozenset[str], float] = {}

    @property
    def all(self) -> tuple[Relayed, ...]:
        return tuple(
            Relayed(one=one, other=other, relay=relay)
            for (one, other), relay in sorted(self.by_pair.items())
        )

    @property
    def unreached(self) -> frozenset[PeerId]:
        """Whom some other peer has dialled in vain."""
        return frozenset(one for pair, said in self.said.items() for one in pair if said - {one})

    def among(self, ring: Iterable[PeerInfo]) -> tuple[Relayed, ...]:
        """Those between peers of one ring."""
        there = {info.id for info in ring} if self.by_pair else set()
        return tuple(entry for entry in self.all if entry.one in there)

    def left(self, pair: tuple[PeerId, PeerId]) -> bool:
        """Whether the relay that they had is gone, or is going."""
        return pair in self.orphans

    def in_making(self, pair: tuple[PeerId, PeerId], now_s: float) -> bool:
        """Whether two, in either order, still have time to link through the relay."""
        named = [p for p in (pair, pair[::-1]) if p in self.by_pair and p in self.named_s]
        return any(now_s < self.named_s[p] + MAKE_S for p in named)

    def part(self, one: str, other: str, now_s: float) -> None:
        """Two islands that were members have lost sight of each other, and one is put out."""
        self.parted[frozenset((one, other))] = now_s + PARTED_S

    def forget(self, pair: tuple[PeerId, PeerId]) -> None:
        self.said.pop(pair, None)
        self.by_pair.pop(pair, None)
        self.named_s.pop(pair, None)
        self.orphans.discard(pair)
        self.failures = {key: n for key, n in self.failures.items() if key[0] != pair}


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
    without: frozenset[str] = frozenset()  # leaving islands that an abort leaves behind
    switched: set[int] = field(default_factory=set)  # rings in which an old member has installed
