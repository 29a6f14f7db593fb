"""Where the next view starts, from what members answered to a fence. docs/design.md 3.1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atoll.membership.messages import ChangeKind, Fenced, PeerId, View

Starts = Mapping[int, int]
"""By channel. A channel that is not named starts at 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """What a view tells the peers of one shard index."""

    starts: Starts = field(default_factory=dict)
    topology: bytes = b""  # of the ring's links, when the view was issued


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A view that the coordinator has sent. `base`: the view whose op counts it carries on."""

    view: View
    kind: ChangeKind
    rings: tuple[Ring, ...] = ()  # by shard; none: nothing was started in any
    base: int = 0

    def ring(self, shard: int) -> Ring:
        return self.rings[shard] if shard < len(self.rings) else Ring()


def drain_starts(answers: Iterable[Fenced], newest: Issued) -> dict[int, int]:
    """Return, per channel, the largest *started*: everything before it runs in the old view.

    Of all rings together: all peers run the same program, so whoever has started the last op
    before the cut has got, in its own ring, what came before, and so will its twins.
    """
    starts: dict[int, int] = {}
    for ring in newest.rings:
        for channel, start in ring.starts.items():
            starts[channel] = max(starts.get(channel, 0), start)
    for answer in answers:
        for channel, counters in answer.progress.items():
            starts[channel] = max(starts.get(channel, 0), counters.started)
    return starts


def behind(answer: Fenced, starts: Starts, before: Starts) -> bool:
    """Whether a member has not started everything before `starts`. `before`: where its ring
    started in the view that it is in."""
    for channel, start in starts.items():
        counters = answer.progress.get(channel)
        started = counters.started if counters else before.get(channel, 0)
        if started < start:
            return True
    return False


def all_done(answers: Iterable[Fenced], starts: Starts) -> bool:
    """Whether every member held all results before `starts` when it answered."""
    return all(
        channel in answer.progress and answer.progress[channel].done == start
        for answer in answers
        for channel, start in starts.items()
        if start
    )


def abort_starts(
    answers: Mapping[PeerId, Fenced], issued: Sequence[Issued], shards: int = 1
) -> tuple[int, tuple[dict[int, int], ...]]:
    """Return the view that the survivors carry on, and per ring and channel their smallest *done*.

    In each ring: a survivor that has not reached the newest view which any survivor of the ring has
    installed counts with that view's start: what it was doing is void or settled. One that is no
    member of that view (a joiner) does not count at all. A ring in which nobody has installed
    anything has nothing but joiners, and begins where the view that others have installed says.
    """
    newest_epoch = max((answer.epoch for answer in answers.values()), default=0)
    if newest_epoch == 0:
        return 0, ({},) * shards
    shard_of = {info.id: info.shard for entry in issued for info in entry.view.members}
    found = []
    for shard in range(shards):
        ring = {peer: answer for peer, answer in answers.items() if shard_of.get(peer) == shard}
        epoch = max((answer.epoch for answer in ring.values()), default=0) or newest_epoch
        base = next(entry for entry in issued if entry.view.epoch == epoch)
        found.append(_ring_starts(ring, base, base.ring(shard).starts))
    return newest_epoch, tuple(found)


def _ring_starts(answers: Mapping[PeerId, Fenced], base: Issued, starts: Starts) -> dict[int, int]:
    epoch = base.view.epoch
    counting = [answers[peer] for peer in base.view.ids if peer in answers]
    reached = [answer for answer in counting if answer.epoch == epoch]
    found = {}
    for channel in sorted(set(starts).union(*(answer.progress for answer in reached))):
        start = starts.get(channel, 0)
        found[channel] = min(
            (
                answer.progress[channel].done
                if answer.epoch == epoch and channel in answer.progress
                else start
                for answer in counting
            ),
            default=start,
        )
    return found


def unequal(rings: Sequence[Starts]) -> bool:
    """Whether some channel starts at different ops in different rings."""
    channels = {channel for starts in rings for channel in starts}
    return any(len({starts.get(channel, 0) for starts in rings}) > 1 for channel in channels)
