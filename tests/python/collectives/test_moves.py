"""Ops that move tensors as they are, between real islands."""

from __future__ import annotations

import pytest
import torch
from island_group import Islands

import atoll

pytestmark = pytest.mark.processes

# Some the engine has names for, some it moves as bytes.
DTYPES = (
    "float32",
    "float64",
    "bfloat16",
    "float16",
    "int8",
    "uint8",
    "int32",
    "int64",
    "int16",
    "bool",
    "complex64",
    "float8_e4m3fn",
)


def some(name: str, *shape: int, rank: int = 0) -> torch.Tensor:
    """Numbers that differ from rank to rank; every bit pattern may be one of them."""
    dtype = getattr(torch, name)
    generator = torch.Generator().manual_seed(7 + rank)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).to(dtype)
    count = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """The same shape, dtype and bits (NaNs, too)."""
    return (
        found.shape == expected.shape
        and found.dtype == expected.dtype
        and torch.equal(
            found.contiguous().view(-1).view(torch.uint8),
            expected.contiguous().view(-1).view(torch.uint8),
        )
    )


@pytest.mark.parametrize("name", DTYPES)
def test_all_gather(islands: Islands, name: str) -> None:
    for shape in ((0,), (1,), (7,), (3, 1001)):
        sources = [some(name, *shape, rank=rank) for rank in range(3)]
        handles = islands.start(lambda session, rank, of=sources: session.all_gather(of[rank]))
        for handle in handles:
            assert same(handle.result(30), torch.stack(sources))


@pytest.mark.parametrize("name", ["float32", "int64", "bool"])
@pytest.mark.parametrize("rows", [(1, 2, 3), (0, 500, 1), (0, 0, 0), (70_000, 0, 0)], ids=str)
def test_all_gather_of_different_sizes(
    islands: Islands, name: str, rows: tuple[int, int, int]
) -> None:
    sources = [some(name, rows[rank], 3, rank=rank) for rank in range(3)]
    gathered = islands.each(lambda session, rank: session.all_gather_list(sources[rank]).result(30))
    told = islands.start(lambda session, rank: session.all_gather_list(sources[rank], sizes=rows))
    for every in (*gathered, *(handle.result(30) for handle in told)):
        assert len(every) == 3
        assert all(same(found, source) for found, source in zip(every, sources, strict=True))


def test_rows_that_differ_in_shape_are_a_mismatch_everywhere(islands: Islands) -> None:
    faults = islands.fail(
        lambda session, rank: session.all_gather_list(torch.zeros(2, 3 + (rank == 1)))
    )
    assert all(isinstance(fault, atoll.errors.MismatchError) for fault in faults)
    assert all("rows differ in shape or dtype" in str(fault) for fault in faults)


@pytest.mark.parametrize("name", DTYPES)
def test_all_to_all(islands: Islands, name: str) -> None:
    for rows in (0, 1, 5, 3000):
        sources = [some(name, 3 * rows, 2, rank=rank) for rank in range(3)]
        handles = islands.start(lambda session, rank, of=sources: session.all_to_all(of[rank]))
        for rank, handle in enumerate(handles):
            mine = slice(rank * rows, (rank + 1) * rows)
            assert same(handle.result(30), torch.cat([source[mine] for source in sources]))


@pytest.mark.parametrize("name", DTYPES)
def test_broadcast(islands: Islands, name: str) -> None:
    for size in (0, 1, 2, 70_001):
        sources = [some(name, size, rank=rank) for rank in range(3)]
        kept = [source.clone() for source in sources]
        by_rank = islands.start(
            lambda session, rank, of=sources: session.broadcast(of[rank], root=1)
        )
        for handle in by_rank:
            assert same(handle.result(30), kept[1])
        assert all(same(source, old) for source, old in zip(sources, kept, strict=True))
        in_place = islands.start(
            lambda session, rank, of=sources: session.broadcast(
                of[rank], of[rank], root=islands.sessions[2].peer_id
            )
        )
        for handle, source in zip(in_place, sources, strict=True):
            assert handle.result(30) is source
            assert same(source, kept[2])


@pytest.mark.parametrize("name", ["float32", "bool", "complex64"])
def test_send_and_recv(islands: Islands, name: str) -> None:
    for size in (0, 1, 33_333):
        source, target = some(name, size, rank=0), some(name, size, rank=1)
        sent = islands.sessions[0].send(source, 2, tag=4)
        received = islands.sessions[2].recv(target, islands.sessions[0].peer_id, tag=4)
        sent.wait(30)
        assert same(received.result(30), source)


def test_both_ways_at_once(islands: Islands) -> None:
    a, _, c = islands.sessions
    first, second = torch.full((9,), 1.0), torch.full((9,), 2.0)
    sent = [a.send(first, 2), c.send(second, 0)]
    received = [a.recv(torch.zeros(9), 2), c.recv(torch.zeros(9), 0)]
    assert [handle.result(30)[0].item() for handle in received] == [2.0, 1.0]
    for handle in sent:
        handle.wait(30)


def test_exchange(islands: Islands) -> None:
    a, b, _ = islands.sessions
    mine, theirs = torch.arange(1000), torch.arange(1000) * 2
    handles = [a.exchange(mine, partner=1, tag=9), b.exchange(theirs, partner=a.peer_id, tag=9)]
    assert torch.equal(handles[0].result(30), theirs)
    assert torch.equal(handles[1].result(30), mine)
    in_place = [a.exchange(mine, mine, partner=1), b.exchange(theirs, theirs, partner=0)]
    for handle in in_place:
        handle.wait(30)
    assert mine[1].item() == 2
    assert theirs[1].item() == 1


def test_a_partner_that_does_not_come_is_late(islands: Islands) -> None:
    handle = islands.sessions[0].recv(torch.zeros(3), 1, tag=77, timeout_s=0.05)
    with pytest.raises(atoll.errors.DeadlineExceeded):
        handle.wait(30)


def test_a_transfer_of_different_sizes_is_a_mismatch(islands: Islands) -> None:
    a, b, _ = islands.sessions
    sent, received = a.send(torch.zeros(4), 1, tag=5), b.recv(torch.zeros(5), 0, tag=5)
    for handle in (sent, received):
        with pytest.raises(atoll.errors.MismatchError):
            handle.wait(30)


def test_barrier(islands: Islands) -> None:
    early = [session.start_barrier() for session in islands.sessions[:2]]
    with pytest.raises(atoll.errors.DeadlineExceeded, match="barrier: not over after"):
        early[0].wait(0.05)
    late = islands.sessions[2].start_barrier()
    assert [handle.result(30) for handle in (*early, late)] == [None] * 3
    islands.each(lambda session, rank: session.barrier(channel=2))
