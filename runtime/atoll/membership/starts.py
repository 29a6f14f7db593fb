"""Where the next view starts, from what members answered to a fence. docs/design.md 3.1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atoll.membership.messages import ChangeKind, Fenced, PeerId, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A view that the coordinator has sent. `base`: the view whose op counts it carries on."""

    view: View
    kind: ChangeKind
    starts: Mapping[int, int] = field(default_factory=dict)
    base: int = 0


def drain_starts(answers: Iterable[Fenced], newest: Issued) -> dict[int, int]:
    """Return, per channel, the largest *started*: everything before it runs in the old view."""
    starts = dict(newest.starts)
    for answer in answers:
        for channel, counters in answer.progress.items():
            starts[channel] = max(starts.get(channel, 0), counters.started)
    return starts


def behind(answer: Fenced, starts: Mapping[int, int], newest: Issued) -> bool:
    """Whether a member has not started everything before `starts`."""
    for channel, start in starts.items():
        counters = answer.progress.get(channel)
        started = counters.started if counters else newest.starts.get(channel, 0)
        if started < start:
            return True
    return False


def all_done(answers: Iterable[Fenced], starts: Mapping[int, int]) -> bool:
    """Whether every member held all results before `starts` when it answered."""
    return all(
        channel in answer.progress and answer.progress[channel].done == start
        for answer in answers
        for channel, start in starts.items()
        if start
    )


def abort_starts(
    answers: Mapping[PeerId, Fenced], issued: Sequence[Issued]
) -> tuple[int, dict[int, int]]:
    """Return the view that the survivors carry on, and per channel their smallest *done*.

    A survivor that has not reached the newest view which any survivor has installed counts with
    that view's start: what it was doing is void or settled. One that is no member of that view
    (a joiner) does not count at all.
    """
    base_epoch = max((answer.epoch for answer in answers.values()), default=0)
    if base_epoch == 0:
        return 0, {}
    base = next(entry for entry in issued if entry.view.epoch == base_epoch)
    counting = [answers[peer] for peer in base.view.ids if peer in answers]
    reached = [answer for answer in counting if answer.epoch == base_epoch]
    channels = set(base.starts).union(*(answer.progress for answer in reached))
    starts = {}
    for channel in sorted(channels):
        start = base.starts.get(channel, 0)
        starts[channel] = min(
            answer.progress[channel].done
            if answer.epoch == base_epoch and channel in answer.progress
            else start
            for answer in counting
        )
    return base_epoch, starts
