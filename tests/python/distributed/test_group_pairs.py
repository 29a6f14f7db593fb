"""Sends and receipts of a process group."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
import torch
from thread_group import Form, Members

from atoll.distributed import ProcessGroup
from atoll.distributed.anybody import AnyReceipt, Waiting
from atoll.errors import DeadlineExceeded, GroupBroken, MismatchError, MisuseError

LARGE = 100_000  # elements; not buffered


@pytest.mark.parametrize("count", [0, 5, LARGE])
def test_messages_of_one_tag_keep_their_order(members: Members, count: int) -> None:
    received = [torch.zeros(count) for _ in range(4)]

    def part(group: ProcessGroup, rank: int) -> None:
        if rank == 0:
            for number in (1.0, 3.0):
                group.send([torch.full((count,), number)], 1, 0)
            works = [group.send([torch.full((count,), number)], 1, 7) for number in (2.0, 4.0)]
            for work in works:
                work.wait()
        if rank == 1:
            works = [
                group.recv([received[place]], 0, tag) for place, tag in enumerate((7, 0, 7, 0))
            ]
            for work in works:
                work.wait()
                assert work.source_rank() == 0

    members.each(part)
    for tensor, number in zip(received, (2, 1, 4, 3), strict=True):
        assert torch.equal(tensor, torch.full((count,), float(number)))


def test_all_may_send_before_they_receive(members: Members) -> None:
    got = [torch.zeros(3, dtype=torch.int64) for _ in range(3)]

    def part(group: ProcessGroup, rank: int) -> None:
        group.send([torch.full((3,), rank)], (rank + 1) % 3).wait()
        group.recv([got[rank]], (rank + 2) % 3).wait()

    members.each(part)
    assert [int(tensor[0]) for tensor in got] == [2, 0, 1]


def test_a_small_send_may_be_changed_at_once(members: Members) -> None:
    got = torch.zeros(16_384)
    tensor = torch.zeros(16_384)
    for number in range(60):  # more than goes out before anybody receives
        tensor.fill_(number)
        members.groups[0].send([tensor], 1).wait()
    for number in range(60):
        members.groups[1].recv([got], 0).wait()
        assert torch.equal(got, torch.full((16_384,), float(number)))


def test_a_transposed_tensor_is_received_in_its_layout(members: Members) -> None:
    got = torch.zeros(2, 3).t()
    sent = torch.arange(6.0).view(3, 2)
    members.groups[0].send([sent], 1)
    members.groups[1].recv([got], 0).wait()
    assert torch.equal(got, sent)


def test_sizes_that_differ_are_a_mismatch(members: Members) -> None:
    work = members.groups[0].send([torch.ones(LARGE)], 1)
    with pytest.raises(MismatchError):
        members.groups[1].recv([torch.ones(LARGE + 1)], 0).wait()
    with pytest.raises(MismatchError):
        work.wait()


def test_a_receipt_that_is_late_fails_the_send_that_it_was_for(form: Form) -> None:
    two = form(2)
    two.groups[1].set_timeout(timedelta(milliseconds=50))
    with pytest.raises(DeadlineExceeded):
        two.groups[1].recv([torch.zeros(LARGE)], 0).wait()
    with pytest.raises(DeadlineExceeded):
        two.groups[0].send([torch.ones(LARGE)], 1).wait()
    got = torch.zeros(LARGE)
    two.groups[1].set_timeout(timedelta(seconds=30))
    work = two.groups[0].send([torch.full((LARGE,), 2.0)], 1)
    two.groups[1].recv([got], 0).wait()
    work.wait()
    assert torch.equal(got, torch.full((LARGE,), 2.0))


def test_a_small_message_outlives_the_departure_of_its_sender(form: Form) -> None:
    two = form(2)
    got = torch.zeros(3)

    def part(group: ProcessGroup, rank: int) -> None:
        if rank == 0:
            group.send([torch.ones(3)], 1).wait()
            group.shutdown()
        else:
            group.recv([got], 0).wait()

    two.each(part)
    assert torch.equal(got, torch.ones(3))


def test_a_receipt_from_who_is_gone_fails(form: Form) -> None:
    three = form(3)
    work = three.groups[0].recv([torch.zeros(3)], 2)
    three.groups[2].shutdown()
    with pytest.raises(GroupBroken, match="peer rank 2"):
        work.wait()


def test_receipts_from_anybody_take_what_comes_first(members: Members) -> None:
    got = [torch.zeros(3) for _ in range(3)]
    receiver = members.groups[0]
    first = receiver.recv_anysource([got[0]], 3)
    members.groups[2].send([torch.full((3,), 2.0)], 0, 3).wait()
    first.wait()
    assert first.source_rank() == 2
    assert torch.equal(got[0], torch.full((3,), 2.0))
    # Sends that wait already; each sender's stay in order, also beside a receipt that names it.
    for number in (5.0, 6.0):
        members.groups[1].send([torch.full((3,), number)], 0, 3).wait()
    named = receiver.recv([got[1]], 1, 3)
    second = receiver.recv_anysource([got[2]], 3)
    named.wait()
    second.wait()
    assert second.source_rank() == 1
    assert [float(got[1][0]), float(got[2][0])] == [5.0, 6.0]


def test_many_receipts_from_anybody(members: Members) -> None:
    count = 40
    got = [torch.zeros(1) for _ in range(2 * count)]
    sources: list[int] = []

    def part(group: ProcessGroup, rank: int) -> None:
        if rank:
            works = [group.send([torch.tensor([float(each)])], 0, 9) for each in range(count)]
        else:
            works = [group.recv_anysource([tensor], 9) for tensor in got]
        for work in works:
            work.wait()
        if rank == 0:
            sources.extend(work.source_rank() for work in works)

    members.each(part)
    for sender in (1, 2):
        mine = [float(tensor) for tensor, rank in zip(got, sources, strict=True) if rank == sender]
        assert mine == [float(each) for each in range(count)]


def test_a_receipt_from_anybody_takes_each_senders_next() -> None:
    def begin(rank: int, number: int) -> Any:
        raise AssertionError

    waiting, tag = Waiting(), 3
    receipts = [AnyReceipt(begin, 1), AnyReceipt(begin, 1)]
    counts = {0: 0, 1: 4}
    for receipt in receipts:
        waiting.add(tag, receipt)
    waiting.offered(0, tag, 1)  # its first one is still on its way
    waiting.offered(1, tag, 3)  # taken by a receipt that named its sender
    waiting.offered(1, tag + 1, 4)
    assert waiting.match(tag, counts.__getitem__) is None
    waiting.offered(0, tag, 0)
    assert waiting.match(tag, counts.__getitem__) == (receipts[0], 0, 0)
    counts[0] = 1
    waiting.received(0, tag, 1)
    assert waiting.match(tag, counts.__getitem__) is None
    assert waiting.take_late(0) == []
    assert waiting.take_late(math.inf) == receipts[1:]


def test_a_receipt_from_anybody_ends_with_its_time_and_with_the_group(form: Form) -> None:
    three = form(3)
    three.groups[0].set_timeout(timedelta(milliseconds=50))
    work = three.groups[0].recv_anysource([torch.zeros(3)])
    with pytest.raises(DeadlineExceeded):
        work.wait()
    three.groups[0].set_timeout(timedelta(seconds=30))
    waiting = three.groups[0].recv_anysource([torch.zeros(3)])
    future = waiting.get_future()
    three.groups[1].shutdown()
    three.groups[2].shutdown()
    with pytest.raises(GroupBroken, match=r"peer rank [12]"):
        waiting.wait()
    with pytest.raises(RuntimeError, match=r"peer rank [12]"):
        future.wait()


def test_ranks_and_tags_are_checked(members: Members) -> None:
    with pytest.raises(MisuseError, match="rank 0 is no other member"):
        members.groups[0].send([torch.ones(1)], 0)
    with pytest.raises(MisuseError, match="rank 3 is no other member"):
        members.groups[0].recv([torch.ones(1)], 3)
    with pytest.raises(MisuseError, match="tag -1"):
        members.groups[0].recv([torch.ones(1)], 1, -1)
