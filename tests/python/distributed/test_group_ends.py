"""Losses, deadlines, aborts: what fails, on whom, with what words, and how a group goes on."""

from __future__ import annotations

import gc
import time
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from thread_group import PATIENCE_S, Form, Members

from atoll.distributed import ProcessGroup
from atoll.errors import (
    DeadlineExceeded,
    GroupBroken,
    MismatchError,
    MisuseError,
    OpAborted,
    SessionClosed,
    ViewChanged,
)

BRIEF = timedelta(milliseconds=50)


def within(timeout: timedelta) -> Any:
    asked = dist.AllreduceOptions()
    asked.timeout = timeout
    return asked


def test_a_member_that_is_gone_fails_what_waits_for_it_and_what_comes_later(form: Form) -> None:
    three = form(3)
    works = [group.allreduce([torch.ones(4)]) for group in three.groups[:2]]
    three.groups[2].shutdown()
    for work, group in zip(works, three.groups, strict=False):
        with pytest.raises(GroupBroken, match=r"Connection closed by peer rank 2 \(127\.0\.0\.1:"):
            work.wait()
        assert isinstance(work.exception(), GroupBroken)
        with pytest.raises(GroupBroken, match="peer rank 2"):
            group.barrier()
        with pytest.raises(GroupBroken, match="peer rank 2"):
            group.send([torch.ones(1)], 2)
        assert group.errored() is not None


def test_who_leaves_in_good_order_ends_only_what_it_takes_part_in(form: Form) -> None:
    three = form(3)
    got = [torch.zeros(100_000), torch.zeros(3)]
    works = [three.groups[1].recv([got[0]], 0), three.groups[1].recv_anysource([got[1]], 5)]
    barrier = three.groups[1].barrier()
    three.groups[2].shutdown()
    with pytest.raises(GroupBroken, match="peer rank 2"):
        barrier.wait()
    three.groups[0].send([torch.ones(100_000)], 1).wait()
    three.groups[0].send([torch.ones(3)], 1, 5).wait()
    for work, tensor in zip(works, got, strict=True):
        work.wait()
        assert torch.equal(tensor, torch.ones_like(tensor))


def test_a_failed_future_says_why(form: Form) -> None:
    three = form(3)
    future = three.groups[0].allreduce([torch.ones(4)]).get_future()
    three.groups[2].shutdown()
    with pytest.raises(RuntimeError, match="Connection closed by peer rank 2"):
        future.wait()


def test_what_a_member_holds_the_result_of_has_gone_well(form: Form) -> None:
    """The last op of a program: whoever is through with it may leave at once."""
    three = form(3)
    for _ in range(5):

        def part(group: ProcessGroup, rank: int) -> None:
            group.allreduce([torch.ones(4)]).wait()
            group.shutdown()

        three.each(part)
        three.form(range(3))


def test_a_result_that_all_have_brought_stands_though_one_is_lost(form: Form) -> None:
    """It has sent its numbers, and cannot say any more that it has everybody's."""
    three = form(3)
    mute = three.groups[2].allreduce([torch.ones(4)])
    engines = [group._formed().engine for group in three.groups]
    end_s = time.monotonic() + PATIENCE_S
    while min(engine.stats().early_frames for engine in engines[:2]) < 2:  # START, numbers
        assert time.monotonic() < end_s
    engines[2].fence(7, "abort")
    with pytest.raises(ViewChanged):
        mute.wait()
    tensors = [torch.ones(4), torch.ones(4)]
    works = [three.groups[rank].allreduce([tensors[rank]]) for rank in range(2)]
    for rank in range(2):  # what was sent before has come as well
        three.groups[rank].send([torch.ones(1)], 1 - rank)
        three.groups[1 - rank].recv([torch.zeros(1)], rank).wait()
    three.groups[2].shutdown()
    for work, tensor in zip(works, tensors, strict=True):
        work.wait(timedelta(seconds=PATIENCE_S))
        assert torch.equal(tensor, torch.full((4,), 3.0))


def test_who_sees_no_loss_does_not_wait_for_those_who_have(form: Form) -> None:
    """Two lose each other, and the third reaches both."""
    three = form(3)
    work = three.groups[0].barrier()
    one, two = (three.groups[rank]._formed() for rank in (1, 2))
    one._lost(two.peers[2], "reset", "the connection was reset")
    two._lost(two.peers[1], "reset", "the connection was reset")
    with pytest.raises(GroupBroken, match=r"Connection closed by peer rank [12]"):
        work.wait()
    with pytest.raises(GroupBroken, match=r"peer rank 2 .*: the connection was reset"):
        three.groups[1].barrier()


def test_a_deadline_fails_one_op_on_all_and_the_group_goes_on(form: Form) -> None:
    three = form(3)
    works = [group.allreduce([torch.ones(4)], within(BRIEF)) for group in three.groups[:2]]
    for work in works:
        with pytest.raises(DeadlineExceeded, match="all-reduce"):
            work.wait()
    with pytest.raises(DeadlineExceeded):
        three.groups[2].allreduce([torch.ones(4)]).wait()
    tensors = [torch.ones(4) for _ in range(3)]
    three.each(lambda group, rank: group.allreduce([tensors[rank]]).wait())
    assert all(torch.equal(tensor, torch.full((4,), 3.0)) for tensor in tensors)


def test_a_wait_that_is_over_ends_nothing(form: Form) -> None:
    two = form(2)
    work = two.groups[0].allreduce([torch.ones(4)])
    with pytest.raises(DeadlineExceeded):
        work.wait(BRIEF)
    assert not work.is_completed()
    two.groups[1].allreduce([torch.ones(4)])
    assert work.wait()


def test_the_timeout_of_a_live_group_can_be_changed(form: Form) -> None:
    two = form(2)
    two.groups[0].set_timeout(BRIEF)
    with pytest.raises(DeadlineExceeded):
        two.groups[0].barrier().wait()
    with pytest.raises(DeadlineExceeded):
        two.groups[1].barrier().wait()
    two.groups[0].set_timeout(timedelta(seconds=30))
    two.each(lambda group, rank: group.barrier().wait())


def test_an_abort_ends_the_group_for_all(form: Form) -> None:
    three = form(3)
    works = [group.allreduce([torch.ones(4)]) for group in three.groups[:2]]
    three.groups[0].abort()
    with pytest.raises(OpAborted):
        works[0].wait()
    with pytest.raises(GroupBroken, match="peer rank 0"):
        works[1].wait()
    with pytest.raises(OpAborted):
        three.groups[0].barrier()
    with pytest.raises(GroupBroken, match="peer rank 0"):
        three.groups[2].barrier().wait()


def test_a_group_is_formed_again_of_other_members(form: Form) -> None:
    four = form(4)

    def total(count: int, ranks: list[int]) -> list[float]:
        tensors = [torch.tensor([rank + 1.0]) for rank in ranks]
        groups = [four.groups[rank] for rank in ranks]
        four.each(lambda group, place: group.allreduce([tensors[place]]).wait(), groups)
        assert [group.rank() for group in groups] == list(range(count))
        assert {group.size() for group in groups} == {count}
        return [float(tensor) for tensor in tensors]

    assert total(4, [0, 1, 2, 3]) == [10.0] * 4
    four.groups[1].shutdown()
    four.form([3, 0, 2])
    assert total(3, [3, 0, 2]) == [8.0] * 3
    four.form([1, 0, 2, 3])
    assert total(4, [1, 0, 2, 3]) == [10.0] * 4
    four.form([2])
    assert total(1, [2]) == [3.0]


def test_a_group_can_be_formed_again_from_the_same_store() -> None:
    store = dist.HashStore()
    two = Members(2)
    for _ in range(3):
        two.each(lambda group, rank: group.configure(store, rank, 2))
        two.each(lambda group, rank: group.barrier().wait())
    for group in two.groups:
        group.shutdown()


def test_a_member_that_does_not_come_is_named() -> None:
    store = dist.HashStore()
    alone = ProcessGroup(timeout=timedelta(milliseconds=300))
    with pytest.raises(
        DeadlineExceeded, match="not all 3 members within 300 ms: rank 1, rank 2 did"
    ):
        alone.configure(store, 0, 3)
    late = ProcessGroup(timeout=timedelta(milliseconds=100))
    with pytest.raises(DeadlineExceeded, match=": rank 0 did not come"):
        late.configure(dist.HashStore(), 2, 3)


def test_calls_that_do_not_fit_fail_on_all_and_the_group_goes_on(form: Form) -> None:
    two = form(2)
    faults = two.fail(lambda group, rank: group.allreduce([torch.ones(4 + rank)]).wait())
    assert all(isinstance(fault, MismatchError) for fault in faults)
    two.each(lambda group, rank: group.barrier().wait())


def test_a_group_without_members_says_what_to_do() -> None:
    with pytest.raises(MisuseError, match=r"call configure\(store, rank, world_size\)"):
        ProcessGroup().barrier()


def test_a_group_that_was_shut_down_says_so(form: Form) -> None:
    one = form(1)
    one.groups[0].shutdown()
    one.groups[0].shutdown()
    with pytest.raises(SessionClosed, match="shut down"):
        one.groups[0].barrier()


def test_a_group_that_is_dropped_has_left(form: Form) -> None:
    two = form(2)
    work = two.groups[0].barrier()
    del two.groups[1]
    gc.collect()
    with pytest.raises(GroupBroken, match="peer rank 1"):
        work.wait()
