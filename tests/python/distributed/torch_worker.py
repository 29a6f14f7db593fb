"""One rank of a real process group, under what people use. Started by test_torch.py.

    torch_worker.py STORE RANK SIZE SCENARIO...        STORE: a file for their meeting

It says a line of JSON for each scenario: {"name": ..., "error": null or what went wrong}.
WORKER_DEVICE: where its tensors are, cpu or cuda.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import atoll.distributed  # noqa: F401 - makes the backend known

FOLDER = Path(sys.argv[1]).parent
DEVICE = os.environ.get("WORKER_DEVICE", "cpu")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def batches(size: int) -> torch.Tensor:
    """[size, 16, 8]: one for each rank."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 16, 8, generator=generator, device="cpu").to(DEVICE)


def same_everywhere(tensor: torch.Tensor) -> bool:
    rows = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, tensor)
    return all(torch.equal(row, rows[0]) for row in rows)


def gradients_of_all(size: int) -> nn.Module:
    whole = model()
    whole(batches(size).reshape(-1, 8)).square().mean().backward()
    return whole


def ddp(rank: int, size: int) -> None:
    ours = nn.parallel.DistributedDataParallel(model(), bucket_cap_mb=1)
    for _ in range(2):
        ours.zero_grad()
        ours(batches(size)[rank]).square().mean().backward()
    for one, other in zip(ours.parameters(), gradients_of_all(size).parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)
        assert same_everywhere(one.grad)


def fsdp(rank: int, size: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    ours, mesh = model(), init_device_mesh(DEVICE, (size,))
    for layer in ours:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(ours, mesh=mesh)
    ours(batches(size)[rank]).square().mean().backward()
    for one, other in zip(ours.parameters(), gradients_of_all(size).parameters(), strict=True):
        assert isinstance(one.grad, DTensor)
        assert torch.allclose(one.grad.full_tensor(), other.grad, atol=1e-6)


def device_mesh(rank: int, size: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(DEVICE, (size, 1), mesh_dim_names=("islands", "shards"))
    total = torch.tensor([rank + 1.0])
    dist.all_reduce(total, group=mesh.get_group("islands"))
    assert total.item() == size * (size + 1) / 2
    dist.all_reduce(total, group=mesh["shards"].get_group())
    assert total.item() == size * (size + 1) / 2
    assert mesh.get_local_rank("islands") == rank


def dtensor(rank: int, size: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh(DEVICE, (size,))
    whole = torch.arange(7 * 4, dtype=torch.float32).view(7, 4)
    rows = distribute_tensor(whole, mesh, [Shard(0)])
    columns = rows.redistribute(mesh, [Shard(1)])
    assert torch.equal(columns.full_tensor(), whole)
    assert torch.equal(columns.to_local(), torch.tensor_split(whole, _cuts(4, size), 1)[rank])
    product = rows.t() @ rows  # partial sums
    assert torch.equal(product.redistribute(mesh, [Replicate()]).to_local(), whole.t() @ whole)


def _cuts(count: int, size: int) -> list[int]:
    """Where torch.chunk cuts."""
    step = -(-count // size)
    return [min(count, step * part) for part in range(1, size)]


def checkpoint(rank: int, size: int) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def sharded() -> nn.Module:
        return fully_shard(model(), mesh=init_device_mesh(DEVICE, (size,)))

    before = sharded()
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.mul_(3.0)
    dcp.save(get_model_state_dict(before), checkpoint_id=str(FOLDER / "checkpoint"))
    after = sharded()
    state = get_model_state_dict(after)
    dcp.load(state, checkpoint_id=str(FOLDER / "checkpoint"))
    for one, other in zip(after.parameters(), model().parameters(), strict=True):
        assert torch.equal(one.full_tensor(), other * 3.0)


def functional(rank: int, size: int) -> None:
    import torch.distributed._functional_collectives as funcol

    group = dist.group.WORLD
    total = funcol.all_reduce(torch.tensor([rank + 1.0]), "sum", group)
    assert total.item() == size * (size + 1) / 2
    mean = funcol.all_reduce(torch.tensor([rank + 1.0]), "avg", group)
    assert mean.item() == (size + 1) / 2
    rows = funcol.all_gather_tensor(torch.full((2, 2), float(rank)), 0, group)
    assert rows[:, 0].tolist() == [float(each) for each in range(size) for _ in range(2)]
    part = funcol.reduce_scatter_tensor(torch.arange(2.0 * size), "sum", 0, group)
    assert part.tolist() == [size * 2.0 * rank, size * (2.0 * rank + 1)]
    swapped = funcol.all_to_all_single(torch.full((size,), float(rank)), None, None, group)
    assert swapped.tolist() == [float(each) for each in range(size)]
    sent = funcol.broadcast(torch.tensor([float(rank)]), 1, group)
    assert sent.item() == 1.0
    many = funcol.all_reduce_coalesced([torch.ones(2), torch.ones(3)], "sum", group)
    assert [each.sum().item() for each in many] == [2.0 * size, 3.0 * size]


def groups(rank: int, size: int) -> None:
    some = dist.new_group([0, size - 1], timeout=timedelta(seconds=20))
    if rank in (0, size - 1):
        total = torch.tensor([rank + 1.0])
        dist.all_reduce(total, group=some)
        assert total.item() == size + 1
        dist.destroy_process_group(some)
    near = dist.new_group([0, 1], use_local_synchronization=True) if rank < 2 else None
    if near is not None:
        dist.barrier(group=near)
    world = dist.group.WORLD
    assert world is not None
    part = world.split_group([0, 1])
    other = world.split_group([2]) if rank == 2 else world.split_group([0, 1])
    assert (part is None) == (rank > 1)
    for group in (part, other):
        if group is not None:
            total = torch.ones(1)
            group.allreduce([total]).wait()
            assert total.item() == group.size()


def objects(rank: int, size: int) -> None:
    said: list[object] = [None] * size
    dist.all_gather_object(said, {"rank": rank})
    assert said == [{"rank": each} for each in range(size)]
    told: list[object] = [["a", rank]]
    dist.broadcast_object_list(told, src=1)
    assert told == [["a", 1]]
    got: list[object] | None = [None] * size if rank == 0 else None
    dist.gather_object(rank * "x", got, dst=0)
    assert got is None or got == [each * "x" for each in range(size)]


def many_at_once(rank: int, size: int) -> None:
    tensors = [torch.full((3,), float(rank)) for _ in range(4)]
    with dist._coalescing_manager(async_ops=True) as coalesced:
        for tensor in tensors:
            dist.all_reduce(tensor)
    coalesced.wait()
    assert all(tensor[0].item() == sum(range(size)) for tensor in tensors)
    got = torch.zeros(2)
    asked = [
        dist.P2POp(dist.isend, torch.full((2,), float(rank)), (rank + 1) % size),
        dist.P2POp(dist.irecv, got, (rank - 1) % size),
    ]
    for work in dist.batch_isend_irecv(asked):
        work.wait()
    assert got[0].item() == (rank - 1) % size
    if rank:
        dist.send(torch.tensor([rank]), 0, tag=4)
    else:
        number = torch.zeros(1, dtype=torch.int64)
        senders = {dist.recv(number, tag=4) for _ in range(size - 1)}
        assert senders == set(range(1, size))


SCENARIOS: dict[str, Callable[[int, int], None]] = {
    each.__name__: each
    for each in (
        ddp,
        fsdp,
        device_mesh,
        dtensor,
        checkpoint,
        functional,
        groups,
        objects,
        many_at_once,
    )
}


def killed(rank: int, size: int) -> None:
    """All-reduces without end; a line says that they have begun, another how they ended."""
    tensor = torch.ones(200_000)
    dist.all_reduce(tensor)
    print(json.dumps({"name": "began"}), flush=True)
    ended = ""
    try:
        while True:
            dist.all_reduce(tensor)
    except RuntimeError as error:
        ended = f"{type(error).__name__}: {error}"
    print(json.dumps({"name": "killed", "error": ended}), flush=True)


def main(store: str, rank: str, size: str, *scenarios: str) -> None:
    torch.set_num_threads(1)
    if DEVICE != "cpu":
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())
        torch.set_default_device(DEVICE)
    dist.init_process_group(
        "atoll",
        store=dist.FileStore(store, int(size)),
        rank=int(rank),
        world_size=int(size),
        timeout=timedelta(seconds=60),
    )
    if scenarios == ("killed",):
        killed(int(rank), int(size))
        return
    for name in scenarios:
        error = None
        try:
            SCENARIOS[name](int(rank), int(size))
        except Exception:  # noqa: BLE001 - all of it is told
            error = traceback.format_exc()
        print(json.dumps({"name": name, "error": error}), flush=True)
        if error is not None:
            return  # the others wait for what this rank will not do
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
