"""Every call of a process group, as a function of what makes its tensors: to run it on two devices.

A call takes a group, a rank and a `Maker`; it starts its ops, and gives its works and the tensors
that it wrote. Its inputs are small whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from atoll.distributed import ProcessGroup

Tensors = list[torch.Tensor]
ROWS = 6  # a multiple of the groups' sizes


class Maker:
    """Tensors on a device, as they are at once."""

    def __init__(self, rank: int, dtype: torch.dtype, device: str) -> None:
        self._generator = torch.Generator().manual_seed(rank)
        self._dtype, self._device = dtype, device

    def numbers(self, *shape: int) -> torch.Tensor:
        """Of this rank."""
        drawn = torch.randint(0, 5, shape, generator=self._generator, device="cpu")
        return self._filled(drawn.to(self._dtype))

    def room(self, *shape: int) -> torch.Tensor:
        """To be written to."""
        return self._filled(torch.full(shape, 3, device="cpu").to(self._dtype))

    def _filled(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self._device)


class LateMaker(Maker):
    """On an accelerator, with nothing in them before kernels of the current stream have run that
    are still waiting when the call is made; what is to be written is spoilt as late."""

    def _filled(self, values: torch.Tensor) -> torch.Tensor:
        tensor = torch.full_like(values, 7, device=self._device)
        ready = values.to(self._device)
        torch.cuda._sleep(20_000_000)  # 10 ms
        return tensor.copy_(ready)


Call = Callable[[ProcessGroup, int, Maker], tuple[list[Any], Tensors]]


def all_reduce(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    tensor = make.numbers(5, 7)
    return [group.allreduce([tensor])], [tensor]


def all_reduce_coalesced(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    tensors = [make.numbers(3), make.numbers(2, 5)]
    return [group.allreduce_coalesced(tensors)], tensors


def all_reduce_of_columns(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    tensor = make.numbers(5, 8)
    return [group.allreduce([tensor.t()[1::2]])], [tensor]


def reduce(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    tensor = make.numbers(9)
    return [group.reduce([tensor], root=1)], [tensor]


def broadcast(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    tensor = make.numbers(9)
    return [group.broadcast([tensor], root=1)], [tensor]


def broadcast_of_columns(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    tensor = make.numbers(4, 9)
    return [group.broadcast([tensor[:, ::3]], root=1)], [tensor]


def all_gather(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    """Of other sizes for every rank."""
    rows = [make.room(1 + each, 3) for each in range(group.size())]
    return [group.allgather([rows], [make.numbers(1 + rank, 3)])], rows


def all_gather_coalesced(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    lists = [[make.room(count) for _ in range(group.size())] for count in (2, 3)]
    work = group.allgather_coalesced(lists, [make.numbers(2), make.numbers(3)])
    return [work], [row for rows in lists for row in rows]


def all_gather_single(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    whole = make.room(group.size(), 4)
    return [group.all_gather_single(whole, make.numbers(4))], [whole]


def all_gather_single_coalesced(
    group: ProcessGroup, rank: int, make: Maker
) -> tuple[list[Any], Tensors]:
    wholes = [make.room(group.size(), count) for count in (4, 1)]
    return [group.all_gather_single_coalesced(wholes, [make.numbers(4), make.numbers(1)])], wholes


def gather(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    rows = [make.room(4) for _ in range(group.size())] if rank == 1 else []
    return [group.gather([rows] if rows else [], [make.numbers(4)], root=1)], rows


def scatter(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    rows = [make.numbers(4) for _ in range(group.size())] if rank == 1 else []
    mine = make.room(4)
    return [group.scatter([mine], [rows] if rows else [], root=1)], [mine]


def reduce_scatter(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    """Of other sizes for every rank."""
    share = make.room(1 + rank)
    parts = [make.numbers(1 + each) for each in range(group.size())]
    return [group.reduce_scatter([share], [parts])], [share]


def reduce_scatter_single(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    share = make.room(ROWS // group.size(), 2)
    return [group.reduce_scatter_single(share, make.numbers(ROWS, 2))], [share]


def reduce_scatter_single_coalesced(
    group: ProcessGroup, rank: int, make: Maker
) -> tuple[list[Any], Tensors]:
    shares = [make.room(ROWS // group.size()), make.room(1)]
    sources = [make.numbers(ROWS), make.numbers(group.size())]
    return [group.reduce_scatter_single_coalesced(shares, sources)], shares


def all_to_all(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    size = group.size()
    outputs = [make.room(1 + rank) for _ in range(size)]
    return [group.alltoall(outputs, [make.numbers(1 + each) for each in range(size)])], outputs


def all_to_all_single(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    output = make.room(ROWS, 2)
    return [group.all_to_all_single(output, make.numbers(ROWS, 2))], [output]


def all_to_all_split(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    size = group.size()
    sizes = list(range(1, size + 1))
    output = make.room(size * (rank + 1), 2)
    work = group.all_to_all_single(output, make.numbers(sum(sizes), 2), [rank + 1] * size, sizes)
    return [work], [output]


def pairs(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    got, size = make.room(5), group.size()
    sent = group.send([make.numbers(5)], (rank + 1) % size)
    return [sent, group.recv([got], (rank - 1) % size)], [got]


def pairs_of_anybody(group: ProcessGroup, rank: int, make: Maker) -> tuple[list[Any], Tensors]:
    got, size = make.room(5), group.size()
    sent = group.send([make.numbers(5)], (rank + 1) % size, 1)
    return [sent, group.recv_anysource([got], 1)], [got]


CALLS: dict[str, Call] = {
    each.__name__: each
    for each in (
        all_reduce,
        all_reduce_coalesced,
        all_reduce_of_columns,
        reduce,
        broadcast,
        broadcast_of_columns,
        all_gather,
        all_gather_coalesced,
        all_gather_single,
        all_gather_single_coalesced,
        gather,
        scatter,
        reduce_scatter,
        reduce_scatter_single,
        reduce_scatter_single_coalesced,
        all_to_all,
        all_to_all_single,
        all_to_all_split,
        pairs,
        pairs_of_anybody,
    )
}
