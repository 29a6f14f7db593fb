"""Every collective of the process group against what it must give, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from thread_group import Form, Members

from atoll.distributed import ProcessGroup

SIZES = [0, 1, 7, 1000, 300_001]


def numbers(rank: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Of one member; sums of them are exact in every dtype."""
    made = torch.Generator().manual_seed(rank)
    return torch.randint(0, 4, shape, generator=made).to(dtype)


def options(kind: Any, **fields: Any) -> Any:
    made = kind()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def run(members: Members, part: Callable[[ProcessGroup, int], dist.Work]) -> None:
    members.each(lambda group, rank: part(group, rank).wait())


@pytest.mark.parametrize("count", SIZES)
def test_all_reduce(members: Members, count: int) -> None:
    tensors = [numbers(rank, count) for rank in range(3)]
    total = sum(tensors)
    run(members, lambda group, rank: group.allreduce([tensors[rank]], dist.AllreduceOptions()))
    for tensor in tensors:
        assert torch.equal(tensor, total)


def test_all_reduce_of_more_than_a_link_holds(members: Members) -> None:
    """The core goes around a ring."""
    tensors = [numbers(rank, 9_000_001) for rank in range(3)]
    total = sum(tensors)
    run(members, lambda group, rank: group.allreduce([tensors[rank]], dist.AllreduceOptions()))
    for tensor in tensors:
        assert torch.equal(tensor, total)


def test_all_reduce_of_random_floats_has_the_same_bits_everywhere(members: Members) -> None:
    tensors = [torch.randn(50_001, generator=torch.Generator().manual_seed(r)) for r in range(3)]
    exact = sum(tensor.double() for tensor in tensors)
    run(members, lambda group, rank: group.allreduce(tensors[rank]))
    assert torch.equal(tensors[0], tensors[1])
    assert torch.equal(tensors[0], tensors[2])
    assert torch.allclose(tensors[0].double(), exact, atol=1e-5)


def test_all_reduce_of_a_transposed_tensor_leaves_its_layout(members: Members) -> None:
    tensors = [numbers(rank, 6, 5).t() for rank in range(3)]
    total = sum(tensor.clone() for tensor in tensors)
    run(members, lambda group, rank: group.allreduce([tensors[rank]]))
    for tensor in tensors:
        assert torch.equal(tensor, total)
        assert tensor.stride() == (1, 5)


def test_all_reduce_coalesced(members: Members) -> None:
    lists = [[numbers(rank, 5), numbers(rank + 7, 3, 2)] for rank in range(3)]
    totals = [sum(each[place] for each in lists) for place in range(2)]
    coalesced = options(dist.AllreduceCoalescedOptions, reduceOp=dist.ReduceOp.SUM)
    run(members, lambda group, rank: group.allreduce_coalesced(lists[rank], coalesced))
    for each in lists:
        assert torch.equal(each[0], totals[0])
        assert torch.equal(each[1], totals[1])


@pytest.mark.parametrize("root", [0, 2])
def test_reduce_leaves_the_others_as_they_were(members: Members, root: int) -> None:
    before = [numbers(rank, 9) for rank in range(3)]
    tensors = [tensor.clone() for tensor in before]
    asked = options(dist.ReduceOptions, rootRank=root)
    run(members, lambda group, rank: group.reduce([tensors[rank]], asked))
    for rank in range(3):
        assert torch.equal(tensors[rank], sum(before) if rank == root else before[rank])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64, torch.int16])
@pytest.mark.parametrize("root", [0, 1])
def test_broadcast(members: Members, root: int, dtype: torch.dtype) -> None:
    tensors = [numbers(rank, 4, 3, dtype=dtype).t() for rank in range(3)]
    wanted = tensors[root].clone()
    asked = options(dist.BroadcastOptions, rootRank=root)
    run(members, lambda group, rank: group.broadcast([tensors[rank]], asked))
    for tensor in tensors:
        assert torch.equal(tensor, wanted)


@pytest.mark.parametrize("uneven", [False, True])
def test_all_gather(members: Members, uneven: bool) -> None:
    sources = [numbers(rank, 4 + rank * uneven, 2) for rank in range(3)]
    lists = [[torch.full_like(source, 9) for source in sources] for _ in range(3)]
    run(members, lambda group, rank: group.allgather([lists[rank]], [sources[rank]]))
    for outputs in lists:
        for output, source in zip(outputs, sources, strict=True):
            assert torch.equal(output, source)


def test_all_gather_coalesced(members: Members) -> None:
    sources = [[numbers(rank, 4), numbers(rank + 5, 2, 2)] for rank in range(3)]
    lists = [[[torch.zeros_like(one) for _ in range(3)] for one in own] for own in sources]
    run(members, lambda group, rank: group.allgather_coalesced(lists[rank], sources[rank]))
    for outputs in lists:
        for place in range(2):
            for rank in range(3):
                assert torch.equal(outputs[place][rank], sources[rank][place])


def test_all_gather_into_one_tensor(members: Members) -> None:
    sources = [numbers(rank, 5, 2) for rank in range(3)]
    outputs = [torch.zeros(15, 2) for _ in range(3)]
    run(members, lambda group, rank: group.all_gather_single(outputs[rank], sources[rank]))
    for output in outputs:
        assert torch.equal(output, torch.cat(sources))


def test_all_gather_of_a_part_of_its_output(members: Members) -> None:
    """As FSDP does it: what is gathered lies where it belongs."""
    outputs = [torch.full((12,), -1.0) for _ in range(3)]
    for rank, output in enumerate(outputs):
        output[rank * 4 : rank * 4 + 4] = numbers(rank, 4)
    wanted = torch.cat([numbers(rank, 4) for rank in range(3)])
    run(
        members,
        lambda group, rank: group.all_gather_single(
            outputs[rank], outputs[rank][rank * 4 : rank * 4 + 4]
        ),
    )
    for output in outputs:
        assert torch.equal(output, wanted)


def test_all_gather_into_tensors_coalesced(members: Members) -> None:
    sources = [[numbers(rank, 5), numbers(rank + 3, 2)] for rank in range(3)]
    outputs = [[torch.zeros(15), torch.zeros(6)] for _ in range(3)]
    run(
        members,
        lambda group, rank: group.all_gather_single_coalesced(outputs[rank], sources[rank]),
    )
    for both in outputs:
        for place in range(2):
            assert torch.equal(both[place], torch.cat([each[place] for each in sources]))


@pytest.mark.parametrize("root", [0, 2])
def test_gather_and_scatter(members: Members, root: int) -> None:
    sources = [numbers(rank, 3 + rank) for rank in range(3)]
    gathered = [torch.zeros_like(source) for source in sources]
    asked = options(dist.GatherOptions, rootRank=root)
    run(
        members,
        lambda group, rank: group.gather(
            [gathered] if rank == root else [], [sources[rank]], asked
        ),
    )
    for output, source in zip(gathered, sources, strict=True):
        assert torch.equal(output, source)

    outputs = [torch.zeros_like(source) for source in sources]
    told = options(dist.ScatterOptions, rootRank=root)
    run(
        members,
        lambda group, rank: group.scatter(
            [outputs[rank]], [gathered] if rank == root else [], told
        ),
    )
    for output, source in zip(outputs, sources, strict=True):
        assert torch.equal(output, source)


@pytest.mark.parametrize("uneven", [False, True])
def test_reduce_scatter(members: Members, uneven: bool) -> None:
    lists = [[numbers(9 * rank + to, 4 + to * uneven) for to in range(3)] for rank in range(3)]
    outputs = [torch.zeros(4 + to * uneven) for to in range(3)]
    run(members, lambda group, rank: group.reduce_scatter([outputs[rank]], [lists[rank]]))
    for to, output in enumerate(outputs):
        assert torch.equal(output, sum(each[to] for each in lists))


@pytest.mark.parametrize("inside", [False, True])
def test_reduce_scatter_of_one_tensor(members: Members, inside: bool) -> None:
    """inside: the result goes where this member's part was."""
    sources = [numbers(rank, 12) for rank in range(3)]
    total = sum(sources)
    outputs = [
        sources[rank][rank * 4 : rank * 4 + 4] if inside else torch.zeros(4) for rank in range(3)
    ]
    run(members, lambda group, rank: group.reduce_scatter_single(outputs[rank], sources[rank]))
    for rank, output in enumerate(outputs):
        assert torch.equal(output, total[rank * 4 : rank * 4 + 4])


def test_reduce_scatter_of_tensors_coalesced(members: Members) -> None:
    sources = [[numbers(rank, 6), numbers(rank + 3, 9)] for rank in range(3)]
    outputs = [[torch.zeros(2), torch.zeros(3)] for _ in range(3)]
    asked = options(dist.ReduceScatterOptions, reduceOp=dist.ReduceOp.MAX)
    run(
        members,
        lambda group, rank: group.reduce_scatter_single_coalesced(
            outputs[rank], sources[rank], asked
        ),
    )
    for place, rows in enumerate((2, 3)):
        largest = torch.stack([each[place] for each in sources]).amax(0)
        for rank in range(3):
            assert torch.equal(outputs[rank][place], largest[rank * rows : (rank + 1) * rows])


def test_all_to_all(members: Members) -> None:
    inputs = [[numbers(9 * rank + to, rank + to) for to in range(3)] for rank in range(3)]
    outputs = [[torch.zeros(rank + to) for rank in range(3)] for to in range(3)]
    run(members, lambda group, rank: group.alltoall(outputs[rank], inputs[rank]))
    for to in range(3):
        for rank in range(3):
            assert torch.equal(outputs[to][rank], inputs[rank][to])


def test_all_to_all_of_one_tensor(members: Members) -> None:
    inputs = [numbers(rank, 6, 2) for rank in range(3)]
    outputs = [torch.zeros(6, 2) for _ in range(3)]
    run(members, lambda group, rank: group.all_to_all_single(outputs[rank], inputs[rank]))
    for to in range(3):
        wanted = torch.cat([inputs[rank][2 * to : 2 * to + 2] for rank in range(3)])
        assert torch.equal(outputs[to], wanted)


def test_all_to_all_of_one_tensor_that_is_no_row_of_memory(members: Members) -> None:
    inputs = [numbers(rank, 2, 3).t() for rank in range(3)]
    outputs = [torch.zeros(2, 3).t() for _ in range(3)]
    run(members, lambda group, rank: group.all_to_all_single(outputs[rank], inputs[rank]))
    for to in range(3):
        assert torch.equal(outputs[to], torch.stack([inputs[rank][to] for rank in range(3)]))


def test_all_to_all_with_splits(members: Members) -> None:
    splits = [[1, 0, 2], [3, 1, 0], [0, 2, 2]]  # by sender
    inputs = [numbers(rank, sum(splits[rank]), 2) for rank in range(3)]
    taken = [[splits[rank][to] for rank in range(3)] for to in range(3)]
    outputs = [torch.zeros(sum(taken[to]), 2) for to in range(3)]
    run(
        members,
        lambda group, rank: group.all_to_all_single(
            outputs[rank], inputs[rank], taken[rank], splits[rank]
        ),
    )
    for to in range(3):
        parts = [inputs[rank].split(splits[rank])[to] for rank in range(3)]
        assert torch.equal(outputs[to], torch.cat(parts))


def test_a_barrier_waits_for_all(members: Members) -> None:
    works = [members.groups[rank].barrier(dist.BarrierOptions()) for rank in range(2)]
    assert not any(work.is_completed() for work in works)
    works.append(members.groups[2].barrier(timeout=timedelta(seconds=20)))
    for work in works:
        assert work.wait()
        assert work.is_completed()
        assert work.exception() is None


def test_many_calls_in_flight_end_in_any_order(members: Members) -> None:
    tensors = [[numbers(9 * call + rank, 100 * call) for call in range(20)] for rank in range(3)]
    totals = [sum(tensors[rank][call] for rank in range(3)) for call in range(20)]

    def part(group: ProcessGroup, rank: int) -> None:
        works = [group.allreduce([tensor]) for tensor in tensors[rank]]
        for work in reversed(works):
            work.wait()

    members.each(part)
    for rank in range(3):
        for tensor, total in zip(tensors[rank], totals, strict=True):
            assert torch.equal(tensor, total)


def test_futures_give_the_tensors(members: Members) -> None:
    tensors = [numbers(rank, 10) for rank in range(3)]
    total = sum(tensors)

    def part(group: ProcessGroup, rank: int) -> torch.Tensor:
        doubled = group.allreduce([tensors[rank]]).get_future().then(lambda f: f.value()[0] * 2)
        return doubled.wait()

    for doubled in members.each(part):
        assert torch.equal(doubled, total * 2)


def test_a_future_is_set_only_after_the_results_are_in_place(members: Members) -> None:
    """All-gather copies from where it gathers; a future's callback must see the copies."""
    lists = [[torch.zeros(4) for _ in range(3)] for _ in range(3)]

    def part(group: ProcessGroup, rank: int) -> float:
        future = group.allgather([lists[rank]], [torch.full((4,), rank + 1.0)]).get_future()
        return float(future.then(lambda f: sum(each.sum() for each in f.value())).wait())

    assert members.each(part) == [24.0] * 3


def test_many_members(form: Form) -> None:
    """So many tell each other along a tree that they are done; one of them leaves at once."""
    ten = form(10)
    tensors = [numbers(rank, 40_000) for rank in range(10)]
    total = sum(tensors)

    def part(group: ProcessGroup, rank: int) -> None:
        group.barrier().wait()
        group.allreduce([tensors[rank]]).wait()
        if rank in (0, 4):
            group.shutdown()

    ten.each(part)
    for tensor in tensors:
        assert torch.equal(tensor, total)
