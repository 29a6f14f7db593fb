"""A peer's side of measuring links: which link it probes when, and what it knows of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from atoll.membership.messages import LinkFigures, Links, Measure, PeerId, View
from atoll.membership.topology import partner, slots


class Row:
    """Thread: none of its own; belongs to the peer's machine."""

    def __init__(self, peer: PeerId, *, probes: bool) -> None:
        """`probes`: whether it measures at all; else its rows are empty."""
        self._peer = peer
        self._probes = probes
        self._number = 0
        self._epoch = 0
        self._burst_s = 0.0
        self._due: list[tuple[float, PeerId]] = []
        self._running: set[PeerId] = set()
        self._measuring = False
        self._figures: dict[PeerId, LinkFigures] = {}
        self._told: dict[PeerId, LinkFigures] = {}  # before they were corrected in this view
        self._corrected_epoch = 0

    @property
    def said(self) -> Links | None:
        """What a coordinator that has forgotten all should hear again."""
        if not self._number or self._measuring:
            return None
        return Links(number=self._number, figures=dict(self._figures))

    def begin(self, measure: Measure, view: View, now_s: float) -> None:
        """A measurement of this peer's view; of another one it is not the time any more."""
        if measure.epoch != view.epoch or self._peer not in view.ids:
            return
        self._number, self._epoch = measure.number, measure.epoch
        self._burst_s = measure.burst_s
        self._measuring = True
        self._due = []
        if not self._probes:
            return
        rank = view.ids.index(self._peer)
        for slot in range(slots(len(view.ids))):
            met = partner(len(view.ids), slot, rank)
            if met is not None and measure.fresh & {self._peer, view.ids[met]}:
                self._due.append((now_s + slot * measure.slot_s, view.ids[met]))

    def due(
        self, view: View, linked: frozenset[PeerId], now_s: float
    ) -> list[tuple[PeerId, float]]:
        """Whom to probe now, and for how long. Another view ends a measurement."""
        if self._due and view.epoch != self._epoch:
            self._due = []
        start = [peer for at_s, peer in self._due if at_s <= now_s]
        self._due = [(at_s, peer) for at_s, peer in self._due if at_s > now_s]
        start = [peer for peer in start if peer in linked and peer not in self._running]
        self._running |= set(start)
        return [(peer, self._burst_s) for peer in start]

    def probed(self, peer: PeerId, figures: LinkFigures | None) -> None:
        """A probe is over."""
        self._running.discard(peer)
        if figures is not None:
            self._figures[peer] = figures
            self._told.pop(peer, None)

    def corrected(self, times: Mapping[PeerId, float], epoch: int) -> Links | None:
        """Its links carry so many times what the view `epoch` says of them: the row then, or None.

        Not while links are measured, which says more.
        """
        if self._corrected_epoch != epoch:
            self._corrected_epoch, self._told = epoch, {}
        known = {peer: factor for peer, factor in times.items() if peer in self._figures}
        if not known or self._measuring:
            return None
        for peer, factor in known.items():
            told = self._told.setdefault(peer, self._figures[peer])
            self._figures[peer] = replace(told, rate_bytes_per_s=told.rate_bytes_per_s * factor)
        return self.said

    def finished(self) -> Links | None:
        """The row, once, when a measurement is over."""
        if not self._measuring or self._due or self._running:
            return None
        self._measuring = False
        return self.said

    def forget(self, peer: PeerId) -> None:
        """It is gone."""
        self._figures.pop(peer, None)
