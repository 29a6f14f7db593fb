"""Where the next view starts. docs/design.md 3.1, passage by passage."""

from __future__ import annotations

from atoll.membership.messages import ChangeKind, Counters, Fenced, PeerInfo, View
from atoll.membership.starts import Issued, Ring, abort_starts, all_done, behind, drain_starts

A, B, J = b"a" * 16, b"b" * 16, b"j" * 16


def answer(epoch: int, *counts: tuple[int, int, int]) -> Fenced:
    progress = {
        channel: Counters(started=s, done=d, committed=c)
        for channel, (s, d, c) in enumerate(counts)
    }
    return Fenced(attempt=1, epoch=epoch, progress=progress)


def issued(epoch: int, members: tuple[bytes, ...], **starts: int) -> Issued:
    infos = tuple(
        PeerInfo(id=m, island=m.hex(), order=i, endpoints=()) for i, m in enumerate(members)
    )
    return Issued(
        view=View(epoch=epoch, members=infos),
        kind=ChangeKind.ABORT,
        rings=(Ring(starts={int(channel[1:]): start for channel, start in starts.items()}),),
    )


def test_an_abort_starts_at_the_smallest_done() -> None:
    answers = {A: answer(1, (6, 6, 5)), B: answer(1, (6, 5, 5))}
    assert abort_starts(answers, [issued(1, (A, B))]) == (1, ({0: 5},))


def test_what_all_have_done_is_committed() -> None:
    answers = {A: answer(1, (6, 6, 5)), B: answer(1, (6, 6, 5))}
    assert abort_starts(answers, [issued(1, (A, B))]) == (1, ({0: 6},))


def test_a_survivor_of_an_older_view_counts_with_the_newest_start() -> None:
    # B is the root of a broadcast in view 2 and done with op 5; A is done with it in view 1: void.
    answers = {A: answer(1, (6, 6, 5)), B: answer(2, (6, 6, 5))}
    views = [issued(1, (A, B)), issued(2, (A, B), c0=5)]
    assert abort_starts(answers, views) == (2, ({0: 5},))


def test_a_joiner_that_has_installed_nothing_does_not_count() -> None:
    answers = {A: answer(1, (6, 6, 6)), J: answer(0)}
    assert abort_starts(answers, [issued(1, (A,)), issued(2, (A, J), c0=6)]) == (1, ({0: 6},))


def test_a_joiner_that_has_installed_keeps_its_start_on_channels_it_has_not_used() -> None:
    answers = {A: answer(2, (7, 7, 6), (3, 3, 3)), J: answer(2, (7, 6, 6))}
    assert abort_starts(answers, [issued(2, (A, J), c0=6, c1=3)]) == (2, ({0: 6, 1: 3},))


def test_founders_that_have_installed_nothing_start_from_nothing() -> None:
    assert abort_starts({A: answer(0), B: answer(0)}, [issued(1, (A, B))]) == (0, ({},))


def test_a_drain_starts_after_everything_started() -> None:
    answers = [answer(1, (6, 5, 5)), answer(1, (5, 5, 5), (2, 1, 1))]
    assert drain_starts(answers, issued(1, (A, B), c2=9)) == {0: 6, 1: 2, 2: 9}


def test_who_has_not_started_everything_is_behind() -> None:
    newest = issued(1, (A, B), c1=4).ring(0).starts
    assert behind(answer(1, (5, 5, 5)), {0: 6}, newest)
    assert not behind(answer(1, (6, 5, 5)), {0: 6, 1: 4}, newest)
    assert behind(answer(1, (6, 5, 5)), {0: 6, 1: 5}, newest)


def test_all_done_means_every_channel_of_everybody() -> None:
    assert all_done([answer(1, (6, 6, 5)), answer(1, (6, 6, 6))], {0: 6})
    assert not all_done([answer(1, (6, 6, 5)), answer(1, (6, 5, 5))], {0: 6})
    assert not all_done([answer(1, (6, 6, 6))], {0: 6, 1: 2})
