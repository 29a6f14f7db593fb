"""What waits for an accelerator: its turn, and that of what comes behind it. There is none here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
import torch
from thread_group import PATIENCE_S, Form

from atoll.distributed import ProcessGroup, calls
from atoll.distributed.staging import Later, Line, Stage
from atoll.errors import DeadlineExceeded, MisuseError


def test_calls_start_one_after_the_other_when_they_are_ready() -> None:
    line = Line()
    assert line.idle
    copied = [threading.Event(), threading.Event()]
    began: list[int] = []

    def start(number: int) -> list[Later]:
        began.append(number)
        return []

    (first,) = line.join(lambda: copied[0].wait(PATIENCE_S), lambda: start(1))
    (second,) = line.join(lambda: copied[1].wait(PATIENCE_S), lambda: start(2))
    copied[1].set()
    assert not line.idle
    with pytest.raises(DeadlineExceeded):
        second.wait(0.01)
    assert not began
    copied[0].set()
    second.wait(PATIENCE_S)
    assert began == [1, 2]
    assert first.done()
    line.close()


def test_what_a_start_raises_is_raised_to_who_waits() -> None:
    line = Line()

    def start() -> list[Later]:
        raise MisuseError("no such thing")

    (later,) = line.join(lambda: None, start)
    told: list[object] = []
    later.add_done_callback(told.append)
    with pytest.raises(MisuseError, match="no such thing"):
        later.wait(PATIENCE_S)
    line.close()
    later.add_done_callback(told.append)
    assert told == [later, later]


def test_what_an_accelerator_raises_is_raised_to_who_waits() -> None:
    """And the line goes on."""
    line = Line()

    def ready() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    (later,) = line.join(ready, lambda: [])
    with pytest.raises(RuntimeError, match="illegal memory access"):
        later.wait(PATIENCE_S)
    (after,) = line.join(lambda: None, lambda: [])
    after.wait(PATIENCE_S)
    line.close()


def test_host_tensors_wait_behind_what_is_on_its_way(form: Form) -> None:
    """All members start the same ops in the same order, wherever each one's copies are."""
    two = form(2)
    copied = threading.Event()
    tensors = [torch.full((4,), rank + 1.0) for rank in range(2)]

    def part(group: ProcessGroup, rank: int) -> torch.Tensor:
        if rank == 0:  # something of its is on its way
            group._line.join(lambda: copied.wait(PATIENCE_S), lambda: [])
            work = group.allreduce([tensors[0]])
            assert not work.is_completed()
            future = work.get_future()
            with pytest.raises(DeadlineExceeded):
                work.wait(timedelta(milliseconds=20))
            copied.set()
            work.wait()
            return future.wait()[0]
        group.allreduce([tensors[1]]).wait()
        return tensors[1]

    for result in two.each(part):
        assert torch.equal(result, torch.full((4,), 3.0))


def test_host_tensors_are_not_copied() -> None:
    stage = Stage()
    tensor = torch.ones(3)
    assert stage.read(tensor) is tensor
    assert stage.written(tensor) is tensor
    assert stage.both(tensor) is tensor
    assert stage.device is None


class Elsewhere(Stage):
    """As if every tensor lay on an accelerator."""

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        self.device = tensor.device
        return tensor.clone()

    def written(self, tensor: torch.Tensor) -> torch.Tensor:
        self.device = tensor.device
        host = torch.full_like(tensor, -7, memory_format=torch.contiguous_format)
        self._back.append((tensor, host))
        return host

    def copied(self) -> Callable[[], None]:
        return lambda: None

    def copy_back(self) -> None:
        for tensor, host in self._back:
            tensor.copy_(host)


def test_every_call_goes_through_the_stage(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "Stage", Elsewhere)
    three = form(3)

    def part(group: ProcessGroup, rank: int) -> None:
        mine = torch.full((6,), rank + 1.0)
        total = mine.clone()
        group.allreduce([total]).wait()
        assert total.tolist() == [6.0] * 6
        group.broadcast([total.fill_(rank)], root=1).wait()
        assert total.tolist() == [1.0] * 6
        kept = mine.clone()
        group.reduce([kept], root=2).wait()
        assert kept.tolist() == [6.0 if rank == 2 else rank + 1.0] * 6
        rows = [torch.zeros(6) for _ in range(3)]
        group.allgather([rows], [mine]).wait()
        assert [row[0].item() for row in rows] == [1.0, 2.0, 3.0]
        whole = torch.zeros(3, 6)
        group.all_gather_single(whole, mine).wait()
        assert whole[:, 5].tolist() == [1.0, 2.0, 3.0]
        share = torch.zeros(2)
        group.reduce_scatter_single(share, torch.arange(6.0)).wait()
        assert share.tolist() == [6.0 * rank, 6.0 * rank + 3]
        group.reduce_scatter([share], [list(torch.arange(6.0).split(2))]).wait()
        assert share.tolist() == [6.0 * rank, 6.0 * rank + 3]
        swapped = torch.zeros(6)
        group.all_to_all_single(swapped, mine).wait()
        assert swapped.tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
        group.alltoall(rows, [mine] * 3).wait()
        assert [row[0].item() for row in rows] == [1.0, 2.0, 3.0]
        group.gather([rows] if rank == 0 else [], [mine * 2], root=0).wait()
        group.scatter([mine], [rows] if rank == 0 else [], root=0).wait()
        assert mine.tolist() == [2.0 * (rank + 1)] * 6
        works = [group.send([mine], (rank + 1) % 3), group.recv([total], (rank + 2) % 3)]
        for work in works:
            work.wait()
        assert total[0].item() == 2.0 * ((rank + 2) % 3 + 1)
        group.send([mine], (rank + 1) % 3, 1)
        receipt = group.recv_anysource([total], 1)
        receipt.wait()
        assert receipt.source_rank() == (rank + 2) % 3

    three.each(part)
