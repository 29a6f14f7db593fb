"""LAMB on a model that FSDP2 shards over two processes, against the model in one piece."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from atoll.optim.lamb import LAMB


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))


def shard(rank: int, store: str, out: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    whole, sharded = model(), model()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    for each in (whole, sharded):
        optimizer = LAMB(each.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            each(x).square().sum().backward()
            optimizer.step()
    pairs = [
        (one.detach(), other.detach().full_tensor())
        for one, other in zip(whole.parameters(), sharded.parameters(), strict=True)
    ]
    if rank == 0:
        torch.save(pairs, out)
    dist.destroy_process_group()


@pytest.mark.processes
def test_dtensors_step_as_the_whole_layer_does_without_a_reduce(tmp_path: Path) -> None:
    out = tmp_path / "pairs.pt"
    mp.spawn(shard, (str(tmp_path / "store"), str(out)), nprocs=2)
    start = list(model().parameters())
    for (whole, sharded), before in zip(torch.load(out), start, strict=True):
        torch.testing.assert_close(sharded, whole)
        assert not torch.allclose(whole, before)
