"""Chunks from several donors, some of which die, refuse or lie."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoll.state import fetch as fetches
from atoll.state.fetch import ChunkFetch, Request
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


def test_the_load_is_spread_over_the_donors() -> None:
    fetch = ChunkFetch(manifest(10 * CHUNK_BYTES), DONORS)
    requests = fetch.take()
    assert len(requests) == 3 * fetches.WINDOW
    assert {request.donor for request in requests} == set(DONORS)
    assert fetch.take() == []


def test_a_lying_donor_is_not_asked_again() -> None:
    fetch = ChunkFetch(manifest(4 * CHUNK_BYTES), DONORS[:2])
    bad = next(request for request in fetch.take() if request.donor == DONORS[0])
    assert not fetch.arrived(bad, "something else")
    later: list[Request] = []
    while more := fetch.take():
        later += more
        for request in more:
            fetch.arrived(request, request.chunk.digest)
    assert all(request.donor == DONORS[1] for request in later)
    assert fetch.corrupt == 1


def test_no_donor_left() -> None:
    fetch = ChunkFetch(manifest(CHUNK_BYTES), DONORS[:1])
    (request,) = fetch.take()
    fetch.failed(request)
    assert fetch.starved
    assert not fetch.complete


def test_nothing_to_fetch() -> None:
    assert ChunkFetch(manifest(0), DONORS).complete


@given(st.lists(st.integers(0, 5 * CHUNK_BYTES), max_size=3), st.data())
def test_every_chunk_arrives_once_while_a_donor_lives(
    sizes: list[int], data: st.DataObject
) -> None:
    wanted = manifest(*sizes)
    fetch = ChunkFetch(wanted, DONORS)
    got: list[tuple[int, int]] = []
    under_way: list[Request] = []
    dead: set[bytes] = set()
    while not fetch.complete:
        under_way += fetch.take()
        request = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        if len(dead) < 2 and data.draw(st.booleans()):
            dead.add(request.donor)
            fetch.failed(request)
            for lost in [other for other in under_way if other.donor == request.donor]:
                under_way.remove(lost)
                fetch.failed(lost)
        else:
            fetch.arrived(request, request.chunk.digest)
            got.append((request.chunk.tensor, request.chunk.offset))
    expected = [
        (index, offset)
        for index, entry in enumerate(wanted.tensors)
        for offset, _ in chunks(entry.nbytes)
    ]
    assert sorted(got) == expected
