"""What need not be sent: chunks that are here already, and zeros."""

from __future__ import annotations

import torch

from atoll.state.fetch import Chunk
from atoll.state.manifest import bytes_of, digest
from atoll.state.transfer import _have


def chunk_of(tensor: torch.Tensor, offset: int, length: int) -> Chunk:
    data = bytes_of(tensor[offset : offset + length])
    return Chunk(tensor=0, offset=offset, length=length, digest=digest(data))


def test_the_same_bytes_are_copied_and_zeros_are_made() -> None:
    theirs = torch.arange(256, dtype=torch.uint8).repeat(8)
    theirs[1024:1536] = 0
    mine = theirs.clone()
    mine[600] ^= 1
    mine[1100] = 9  # here are no zeros: they need not be, either
    target = torch.full_like(theirs, 77)
    had = [_have([mine], [target], chunk_of(theirs, at, 512)) for at in range(0, 2048, 512)]
    assert had == [True, False, True, True]
    assert torch.equal(target[:512], theirs[:512])
    assert target[512:1024].eq(77).all()  # to be fetched
    assert torch.equal(target[1024:], theirs[1024:])


def test_zeros_are_known_without_anything_here() -> None:
    zeros = torch.zeros(300, dtype=torch.uint8)
    target = torch.full_like(zeros, 5)
    assert _have([], [target], chunk_of(zeros, 0, 300))
    assert target.eq(0).all()
    assert not _have([], [target], chunk_of(zeros + 1, 0, 300))
