"""The invariants of docs/design.md 3.2, checked whenever something happens that could break one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from atoll.errors import AtollError, CannotJoin
from atoll.membership.events import JobEvent
from atoll.membership.messages import ChangeKind, Departure, PeerId, View
from atoll.membership.starts import Issued
from atoll.sim.engine import Engine, Op, Result


class Violation(Exception):
    """An invariant does not hold."""


class Checks:
    """Sees everything, also what no peer could know. `find`: a live peer's engine, or None."""

    def __init__(self, find: Callable[[PeerId], Engine | None], shards: int = 1) -> None:
        self.shards = shards
        self._find = find
        self._views: dict[int, View] = {}
        self._lineage: dict[int, int] = {0: 0}
        self._results: dict[tuple[int, int, int, int], Result] = {}
        self._joined: dict[str, tuple[PeerId, dict[int, int]]] = {}
        self._topologies: dict[int, tuple[bytes, ...]] = {}
        self._lost_state: set[int] = set()
        self.commits = 0
        self.installs = 0
        self.told = 0  # installs with measured links

    def on_issue(self, entries: Iterable[Issued]) -> None:
        """One line: an epoch is one view, whoever asks. Ops count on from the view's base."""
        for entry in entries:
            epoch = entry.view.epoch
            known = self._views.setdefault(epoch, entry.view)
            if known.ids != entry.view.ids:
                raise Violation(f"one line: view {epoch} was issued twice, with other members")
            self._whole(entry.view)
            topologies = tuple(ring.topology for ring in entry.rings)
            if self._topologies.setdefault(epoch, topologies) != topologies:
                raise Violation(f"one line: view {epoch} was issued twice, with other figures")
            base = self._lineage.get(entry.base, 0) if entry.base else epoch
            self._lineage.setdefault(epoch, base)

    def _whole(self, view: View) -> None:
        """Whole islands: of each all shards, in order, of one incarnation."""
        size = self.shards
        for first in range(0, len(view.members), size):
            island = view.members[first : first + size]
            shards = [info.shard for info in island]
            names = {self._island_of(info.id) for info in island}
            if shards != list(range(size)) or len(names) > 1:
                what = ", ".join(_name(info.id) for info in island)
                raise Violation(f"whole islands: view {view.epoch} holds {what}")

    def on_told(self, peer: PeerId, view: View, topology: bytes) -> None:
        """All members of a ring choose plans from the same bytes."""
        if self._topologies[view.epoch][self._shard_of(peer)] != topology:
            raise Violation(f"one line: {_name(peer)} is told other figures of view {view.epoch}")
        self.told += bool(topology)

    @staticmethod
    def _island_of(peer: PeerId) -> str:
        return _name(peer).partition(".")[0]

    @staticmethod
    def _shard_of(peer: PeerId) -> int:
        return int(_name(peer).partition(".")[2])

    def on_event(self, event: JobEvent) -> None:
        """Islands go as a whole, but only because of a shard that has gone by itself."""
        if event.departure is Departure.SHARD_LOST:
            raise Violation(f"whole islands: {event.message}")

    def on_ended(self, peer: PeerId, view: View, error: AtollError) -> None:
        """One line: whoever leads knows every view that was ever installed."""
        if view.epoch and isinstance(error, CannotJoin):
            raise Violation(f"one line: {_name(peer)} in view {view.epoch} is refused: {error}")

    def on_install(
        self, engine: Engine, view: View, starts: Mapping[int, int], kind: ChangeKind
    ) -> None:
        self.installs += 1
        known = self._views.get(view.epoch)
        shard = self._shard_of(engine.peer)
        if known is None or known.ring(shard).ids != view.ids:
            raise Violation(f"one line: {_name(engine.peer)} installs a view that was not issued")
        if view.epoch <= engine.view.epoch:
            raise Violation(f"one line: {_name(engine.peer)} goes back to view {view.epoch}")
        if not engine.member:
            if engine.peer in view.ids:
                self._on_join(engine.peer, view, starts)
            return
        check_cut(engine, view, starts, kind)

    def _on_join(self, peer: PeerId, view: View, starts: Mapping[int, int]) -> None:
        """Joined means equal: an island begins at the same op in all rings."""
        began = {channel: start for channel, start in starts.items() if start}
        twin, known = self._joined.setdefault(self._island_of(peer), (peer, began))
        if known != began:
            raise Violation(
                f"joined means equal: {_name(peer)} begins at {began}, {_name(twin)} at {known}"
            )

    def on_done(self, engine: Engine, channel: int, op: Op) -> None:
        check_result(engine, channel, op)

    def on_commit(self, engine: Engine, channel: int, op: Op) -> None:
        """Agreement, and committed here <= done at all others."""
        self.commits += 1
        result = op.result
        assert result is not None
        what = f"{_name(engine.peer)} op {channel}/{op.sequence} of view {result.epoch}"
        shard = self._shard_of(engine.peer)
        key = (self._lineage[result.epoch], shard, channel, op.sequence)
        known = self._results.setdefault(key, result)
        if known != result:
            raise Violation(f"agreement: {what}: {_show(result)}, elsewhere {_show(known)}")
        ring = self._views[result.epoch].ring(shard).ids
        others = [peer for peer in ring if peer != engine.peer]
        if not op.dones.issuperset(others):
            return  # committed by an abort, which asked those that go on
        for peer in others:
            other = self._find(peer)
            if other is not None and other.channel(channel).done <= op.sequence:
                raise Violation(f"commit: {what} is not done at {_name(peer)}")


def check_cut(engine: Engine, view: View, starts: Mapping[int, int], kind: ChangeKind) -> None:
    """Agreement: a member that goes from one view to the next has what it is told that it has."""
    for number, channel in engine.channels.items():
        start = starts.get(number, 0)
        what = f"{_name(engine.peer)} channel {number} at view {view.epoch}: start {start}"
        if channel.committed > start:
            raise Violation(f"agreement: {what} is before {channel.committed} committed ops")
        # Whoever goes on must hold what it is told to commit. One that leaves may not.
        if channel.done < start and engine.peer in view.ids:
            raise Violation(f"agreement: {what} is beyond the {channel.done} ops done here")
        if kind is ChangeKind.DRAIN and channel.started > start:
            raise Violation(f"drain: {what} cuts through {channel.started} started ops")


def check_result(engine: Engine, channel: int, op: Op) -> None:
    """No mixing: one view, each of its members once. Joined means equal: one state."""
    result = op.result
    assert result is not None
    what = f"{_name(engine.peer)} op {channel}/{op.sequence} in view {engine.view.epoch}"
    if any(c.epoch != engine.view.epoch for c in result.contributions):
        raise Violation(f"no mixing: {what} holds contributions of several views")
    if len({c.peer for c in result.contributions}) != len(result.contributions):
        raise Violation(f"no mixing: {what} holds a contribution twice")
    if len({c.state for c in result.contributions}) > 1:
        raise Violation(f"joined means equal: {what}: {[c.state for c in result.contributions]}")


def named(name: str, number: int, shard: int) -> PeerId:
    """The id of a shard of the island `name` in its incarnation `number`."""
    return f"{name}{number}.{shard}".encode().ljust(16, b".")


def _name(peer: PeerId) -> str:
    return peer.rstrip(b".").decode()


def _show(result: Result) -> str:
    peers = ",".join(_name(c.peer) for c in result.contributions)
    return f"view {result.epoch} ({peers})"
