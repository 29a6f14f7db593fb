"""Chunks from several donors, some of which die, refuse, lie or dawdle."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.state.fetch import FIRST_WINDOW, LARGEST_WINDOW, Chunk, ChunkFetch, Request
from atoll.state.manifest import CHUNK_BYTES, Manifest, TensorEntry, chunks

DONORS = [bytes([index]) * 16 for index in range(3)]


def manifest(*sizes: int) -> Manifest:
    return Manifest(
        revision=3,
        values={},
        tensors=tuple(
            TensorEntry(
                name=str(index),
                nbytes=size,
                digests=tuple(f"{index}/{offset}" for offset, _ in chunks(size)),
            )
            for index, size in enumerate(sizes)
        ),
    )


def arrives(fetch: ChunkFetch, request: Request, now: float = 1.0) -> bool:
    return fetch.arrived(request, request.chunk.digest, now)


def test_the_load_is_spread_over_the_donors() -> None:
    fetch = ChunkFetch(manifest(10 * CHUNK_BYTES), DONORS)
    requests = fetch.take(0)
    assert len(requests) == 3 * FIRST_WINDOW // CHUNK_BYTES
    assert {request.donor for request in requests} == set(DONORS)
    assert fetch.take(0) == []


def test_a_lying_donor_is_not_asked_again() -> None:
    fetch = ChunkFetch(manifest(4 * CHUNK_BYTES), DONORS[:2])
    first = fetch.take(0)
    bad = next(request for request in first if request.donor == DONORS[0])
    assert not fetch.arrived(bad, "something else", 1)
    waiting = [request for request in first if request != bad]
    later: list[Request] = []
    while waiting:
        arrives(fetch, waiting.pop())
        more = fetch.take(2)
        later += more
        waiting += more
    assert fetch.complete
    assert later
    assert all(request.donor == DONORS[1] for request in later)
    assert fetch.tally.corrupt == 1


def test_no_donor_left() -> None:
    fetch = ChunkFetch(manifest(CHUNK_BYTES), DONORS[:1])
    (request,) = fetch.take(0)
    fetch.failed(request)
    assert fetch.starved
    assert fetch.take(1) == []
    assert not fetch.complete


def test_nothing_to_fetch() -> None:
    assert ChunkFetch(manifest(0), DONORS).complete


def test_what_is_here_is_not_asked_for() -> None:
    def have(chunk: Chunk) -> bool:
        return chunk.offset != 3 * CHUNK_BYTES

    fetch = ChunkFetch(manifest(10 * CHUNK_BYTES), DONORS, have)
    (request,) = fetch.take(0)
    assert request.chunk.offset == 3 * CHUNK_BYTES
    arrives(fetch, request)
    assert fetch.complete
    assert fetch.tally.kept_bytes == 9 * CHUNK_BYTES
    assert fetch.tally.fetched == [request.chunk]


def test_what_is_here_needs_no_donor() -> None:
    fetch = ChunkFetch(manifest(10 * CHUNK_BYTES), [], lambda chunk: True)
    assert fetch.take(0) == []
    assert fetch.complete


def duration(rates: list[float], size: int) -> tuple[float, ChunkFetch]:
    """Seconds until `size` bytes are here, from donors with lines of these bytes per second."""
    fetch = ChunkFetch(manifest(size), DONORS[: len(rates)])
    rate_of = dict(zip(DONORS, rates, strict=False))
    free_at = dict.fromkeys(rate_of, 0.0)
    arrivals: list[tuple[float, int, Request]] = []
    aborted: set[Request] = set()
    now, number = 0.0, 0
    while not fetch.complete:
        for request in fetch.take(now):
            begins = max(now, free_at[request.donor])
            free_at[request.donor] = begins + request.chunk.length / rate_of[request.donor]
            heapq.heappush(arrivals, (free_at[request.donor], number, request))
            number += 1
        for request in fetch.dawdling(now):
            aborted.add(request)
            fetch.released(request, now)
        if fetch.complete or not (arrivals or aborted):
            break
        if aborted and not any(one not in aborted for _, _, one in arrivals):
            continue  # asked of another at once
        now, _, request = heapq.heappop(arrivals)
        if request in aborted:
            aborted.discard(request)
        else:
            arrives(fetch, request, now)
    return now, fetch


def test_three_donors_are_three_times_as_fast_as_one() -> None:
    size = 256 * CHUNK_BYTES
    one, _ = duration([1e8], size)
    three, fetch = duration([1e8] * 3, size)
    assert one / three > 2.9
    assert min(fetch.tally.bytes_from.values()) > size / 3.3


@pytest.mark.parametrize("slow", [1e7, 1e6, 1e5])
def test_nobody_waits_for_a_slow_donor(slow: float) -> None:
    size = 256 * CHUNK_BYTES
    took, _ = duration([1e8, 1e8, slow], size)
    assert took < 1.1 * size / (2e8 + slow) + 0.3


def test_a_stalled_donor_is_relieved() -> None:
    fetch = ChunkFetch(manifest(4 * CHUNK_BYTES), DONORS[:2])
    first = fetch.take(0)
    stalled = [request for request in first if request.donor == DONORS[0]]
    for request in first:
        if request.donor == DONORS[1]:
            arrives(fetch, request, 0.1)
    assert fetch.take(0.1) == []
    assert fetch.dawdling(0.15) == []
    (back,) = fetch.dawdling(5.0)  # one donor is idle: one chunk is asked back
    assert back in stalled
    assert fetch.dawdling(5.0) == []  # and once
    fetch.released(back, 5.0)
    (again,) = fetch.take(5.0)
    assert again.donor == DONORS[1]


@given(st.lists(st.integers(0, 5 * CHUNK_BYTES), max_size=3), st.data())
def test_every_chunk_arrives_once_while_a_donor_lives(
    sizes: list[int], data: st.DataObject
) -> None:
    wanted = manifest(*sizes)
    kept: list[Chunk] = []

    def have(chunk: Chunk) -> bool:
        if data.draw(st.integers(0, 3)):
            return False
        kept.append(chunk)
        return True

    fetch = ChunkFetch(wanted, DONORS, have)
    got: list[tuple[int, int]] = []
    under_way: list[Request] = []
    dead: set[bytes] = set()
    now = 0.0
    while not fetch.complete:
        now += data.draw(st.sampled_from([0.0, 0.001, 1.0]))
        under_way += fetch.take(now)
        for donor in DONORS:
            load = sum(one.chunk.length for one in under_way if one.donor == donor)
            assert load <= LARGEST_WINDOW
        if not under_way:
            assert fetch.complete
            break
        back = fetch.dawdling(now)
        assert set(back) <= set(under_way)
        request = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        if len(dead) < 2 and data.draw(st.booleans()):
            dead.add(request.donor)
            fetch.failed(request)
            for lost in [other for other in under_way if other.donor == request.donor]:
                under_way.remove(lost)
                fetch.failed(lost)
        elif request in back and data.draw(st.booleans()):
            fetch.released(request, now)
        else:
            assert arrives(fetch, request, now)
            got.append((request.chunk.tensor, request.chunk.offset))
    expected = [
        (index, offset)
        for index, entry in enumerate(wanted.tensors)
        for offset, _ in chunks(entry.nbytes)
    ]
    assert sorted(got + [(chunk.tensor, chunk.offset) for chunk in kept]) == expected
