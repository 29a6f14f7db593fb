"""The coordinator's side of measuring links: when members measure, and when a view tells them.

A measurement begins when all members have installed a view in which somebody's links were never
measured, or when a member asks. The figures come back row by row. When all rows are there (or time
is over) and they are news, a drain into a view of the same members carries them to all.
docs/collectives.md, "Probe".
"""

from __future__ import annotations

from dataclasses import dataclass

from atoll.membership.messages import Links, Measure, PeerId
from atoll.membership.records import Peer
from atoll.membership.state import State
from atoll.membership.topology import MAX_MEMBERS, encode, is_news, slots

FILLER_S = 0.7
"""What a member's line is busy with filler in one measurement, in all slots together."""
MOST_BURST_S = 0.1
ALL_SLOTS_S = 8.0
"""All slots together take no longer, unless they are many: bursts on long paths take a second."""
PATIENCE_S = 5.0
"""For rows, after the last slot."""


@dataclass(slots=True, kw_only=True)
class Measurement:
    """Under way."""

    number: int
    epoch: int
    until_s: float
    fresh: frozenset[PeerId]
    waiting: set[PeerId]


def on_links(state: State, peer: Peer, message: Links) -> None:
    """A row of figures, perhaps said again on a new stream."""
    for other, figures in message.figures.items():
        if other in state.peers and other != peer.id:
            state.figures[peer.id, other] = figures
    state.measured.add(peer.id)
    state.figures_number += 1
    state.figures_came = True
    if state.measurement is not None and message.number == state.measurement.number:
        state.measurement.waiting.discard(peer.id)


def advance_measuring(state: State) -> bool:
    """Called while no change is under way. Whether a view should tell what is known now."""
    options, view = state.options, state.newest.view
    if state.installed_epoch != view.epoch:
        state.installed_epoch, state.settled_s = view.epoch, state.now_s
    measurement = state.measurement
    if measurement is not None and measurement.epoch != view.epoch:
        measurement = state.measurement = None
    if not 2 <= len(view.members) // max(1, state.shards) <= MAX_MEMBERS:
        return False
    if measurement is not None:
        if measurement.waiting and state.now_s < measurement.until_s:
            return False
        state.measured |= measurement.fresh  # those that did not answer were tried
        state.measurement = None
    elif _begin(state):
        return False  # first that
    if not state.figures_came or state.now_s < state.told_s + options.topology_interval_s:
        return False
    state.figures_came = False
    if not any(
        is_news(ring.topology, encode(view.ring(shard).ids, state.figures))
        for shard, ring in enumerate(state.newest.rings)
    ):
        return False
    state.told_s = state.now_s
    return True


def _begin(state: State) -> bool:
    """Begins a measurement when it is time. Whether there is something to measure."""
    options, view = state.options, state.newest.view
    fresh = frozenset(view.ids) - state.measured
    if state.measure_asked and state.now_s >= state.measured_s + options.topology_interval_s:
        fresh = frozenset(view.ids)
    members = state.members()
    if not fresh:
        return False
    settled = state.now_s >= state.settled_s + options.measure_settle_s
    if not settled or any(peer.stream is None or peer.leaving for peer in members):
        return True
    state.measure_asked = False
    state.measured_s = state.now_s
    state.measurements += 1
    count = slots(len(view.islands))  # the rings measure at the same time, as they work
    slot_s = max(options.measure_slot_s, min(options.measure_long_slot_s, ALL_SLOTS_S / count))
    burst_s = min(MOST_BURST_S, FILLER_S / count)
    state.measurement = Measurement(
        number=state.measurements,
        epoch=view.epoch,
        until_s=state.now_s + count * slot_s + PATIENCE_S,
        fresh=fresh,
        waiting=set(view.ids),
    )
    message = Measure(
        number=state.measurements,
        epoch=view.epoch,
        fresh=fresh,
        burst_s=burst_s,
        slot_s=slot_s,
    )
    for peer in members:
        state.send(peer, message)
    return True
