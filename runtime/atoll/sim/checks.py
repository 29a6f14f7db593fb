"""The invariants of docs/design.md 3.2, checked whenever something happens that could break one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from atoll.membership.messages import ChangeKind, PeerId, View
from atoll.membership.starts import Issued
from atoll.sim.engine import Engine, Op, Result


class Violation(Exception):
    """An invariant does not hold."""


class Checks:
    """Sees everything, also what no peer could know. `find`: a live peer's engine, or None."""

    def __init__(self, find: Callable[[PeerId], Engine | None]) -> None:
        self._find = find
        self._views: dict[int, View] = {}
        self._lineage: dict[int, int] = {0: 0}
        self._results: dict[tuple[int, int, int], Result] = {}
        self._lost_state: set[int] = set()
        self.commits = 0
        self.installs = 0

    def on_issue(self, entries: Iterable[Issued]) -> None:
        """One line: an epoch is one view, whoever asks. Ops count on from the view's base."""
        for entry in entries:
            epoch = entry.view.epoch
            known = self._views.setdefault(epoch, entry.view)
            if known.ids != entry.view.ids:
                raise Violation(f"one line: view {epoch} was issued twice, with other members")
            base = self._lineage.get(entry.base, 0) if entry.base else epoch
            self._lineage.setdefault(epoch, base)

    def on_install(
        self, engine: Engine, view: View, starts: Mapping[int, int], kind: ChangeKind
    ) -> None:
        self.installs += 1
        known = self._views.get(view.epoch)
        if known is None or known.ids != view.ids:
            raise Violation(f"one line: {_name(engine.peer)} installs a view that was not issued")
        if view.epoch <= engine.view.epoch:
            raise Violation(f"one line: {_name(engine.peer)} goes back to view {view.epoch}")
        if not engine.member:
            return
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

    def on_done(self, engine: Engine, channel: int, op: Op) -> None:
        """No mixing: one view, each of its members once. Joined means equal: one state."""
        result = op.result
        assert result is not None
        what = f"{_name(engine.peer)} op {channel}/{op.sequence} in view {engine.view.epoch}"
        if any(c.epoch != engine.view.epoch for c in result.contributions):
            raise Violation(f"no mixing: {what} holds contributions of several views")
        if len({c.peer for c in result.contributions}) != len(result.contributions):
            raise Violation(f"no mixing: {what} holds a contribution twice")
        if len({c.state for c in result.contributions}) > 1:
            raise Violation(
                f"joined means equal: {what}: {[c.state for c in result.contributions]}"
            )

    def on_commit(self, engine: Engine, channel: int, op: Op) -> None:
        """Agreement, and committed here <= done at all others."""
        self.commits += 1
        result = op.result
        assert result is not None
        what = f"{_name(engine.peer)} op {channel}/{op.sequence} of view {result.epoch}"
        key = (self._lineage[result.epoch], channel, op.sequence)
        known = self._results.setdefault(key, result)
        if known != result:
            raise Violation(f"agreement: {what}: {_show(result)}, elsewhere {_show(known)}")
        others = [peer for peer in self._views[result.epoch].ids if peer != engine.peer]
        if not op.dones.issuperset(others):
            return  # committed by an abort, which asked those that go on
        for peer in others:
            other = self._find(peer)
            if other is not None and other.channel(channel).done <= op.sequence:
                raise Violation(f"commit: {what} is not done at {_name(peer)}")


def _name(peer: PeerId) -> str:
    return peer.rstrip(b".").decode()


def _show(result: Result) -> str:
    peers = ",".join(_name(c.peer) for c in result.contributions)
    return f"view {result.epoch} ({peers})"
