"""Programs that let torch make tensors elsewhere by default: what is of the host's stays there."""

from __future__ import annotations

import pytest
import torch
from device_calls import CALLS, Maker
from thread_group import Members

from atoll.distributed import ProcessGroup


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_calls_do_not_look_at_the_default(members: Members, name: str, dtype: torch.dtype) -> None:
    def part(group: ProcessGroup, rank: int) -> list[torch.Tensor]:
        works, written = CALLS[name](group, rank, Maker(rank, dtype, "cpu"))
        for work in works:
            work.wait()
        return written

    def elsewhere(group: ProcessGroup, rank: int) -> list[torch.Tensor]:
        with torch.device("meta"):
            return part(group, rank)

    for ours, wanted in zip(members.each(elsewhere), members.each(part), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, wanted, strict=True))
