"""What peers report, for people: rounds, losses, and whether all hold the same bits."""

from __future__ import annotations

import math

from atoll.membership.messages import NOTICES, PeerId, PeerInfo, Report
from atoll.membership.records import Peer
from atoll.membership.state import State

KEPT_ROUNDS = 8
"""Members are at most one round apart; digests of older rounds have been compared."""


class Reports:
    """Thread: none of its own; belongs to the coordinator's machine."""

    def __init__(self) -> None:
        self.round = 0
        self.loss = float("nan")
        self.parity_failures = 0
        self._rounds: dict[int, dict[PeerId, tuple[PeerInfo, Report]]] = {}
        self._unequal: set[int] = set()
        self._state_epoch = 0

    def add(self, state: State, peer: Peer, report: Report) -> None:
        """Takes note of a report and tells when a round is over or members differ."""
        told = 0 if peer.report is None else peer.report.notice_number
        if report.notice_number > told and report.notice_kind in NOTICES:
            state.tell(report.notice_kind, report.notice, peer=peer.info, round=report.round)
        peer.report = report
        if state.state_epoch != self._state_epoch:
            # The state began again: rounds go on from a checkpoint, or from the first.
            self._state_epoch = state.state_epoch
            self.round = 0
            self._rounds.clear()
            self._unequal.clear()
        if report.round > 0 and not state.trained:
            state.trained = state.dirty = True
        newest_known = max(self._rounds, default=0)
        if not state.is_member(peer.id) or not report.round:
            return
        if report.round <= newest_known - KEPT_ROUNDS or report.round < self.round:
            return
        entries = self._rounds.setdefault(report.round, {})
        entries[peer.id] = (peer.info, report)
        self._compare(state, report.round)
        for round in sorted(self._rounds):
            if round > self.round and (round < report.round or self._complete(state, round)):
                self._finish(state, round)
        for old in [r for r in self._rounds if r <= max(self._rounds) - KEPT_ROUNDS]:
            del self._rounds[old]
            self._unequal.discard(old)

    def _complete(self, state: State, round: int) -> bool:
        return all(member.id in self._rounds[round] for member in state.members())

    def _finish(self, state: State, round: int) -> None:
        reports = [report for _, report in self._rounds[round].values()]
        losses = [report.loss for report in reports if math.isfinite(report.loss)]
        self.round = round
        if not losses and not any(report.digest or report.contributed for report in reports):
            return  # where the members begin, after a restart: it was over long ago
        self.loss = sum(losses) / len(losses) if losses else float("nan")
        contributors = len({i.island for i, r in self._rounds[round].values() if r.contributed})
        text = f"round {round}: loss {self.loss:.4f}, {contributors} contributed"
        state.tell("round", text, round=round, loss=self.loss)

    def _compare(self, state: State, round: int) -> None:
        """Members of a ring that have committed the same round must hold the same parameters."""
        rings: dict[int, dict[str, list[str]]] = {}
        for info, report in self._rounds[round].values():
            if report.digest:
                ring = rings.setdefault(info.shard, {})
                ring.setdefault(report.digest, []).append(info.island)
        groups = next((ring for ring in rings.values() if len(ring) > 1), None)
        if groups is not None and round not in self._unequal:
            self._unequal.add(round)
            self.parity_failures += 1
            sides = " / ".join(
                f"{digest[:12]}: {', '.join(sorted(islands))}"
                for digest, islands in sorted(groups.items())
            )
            state.tell("parity", f"parameters differ after round {round}: {sides}", round=round)
