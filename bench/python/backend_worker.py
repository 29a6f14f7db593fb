"""One rank of a side-by-side benchmark of torch.distributed's backends. Started by groups.py.

    backend_worker.py BACKEND STORE RANK MEMBERS [DEVICE]     STORE: a file for their first meeting

As allreduce_worker.py, with an "op" in what is asked for: a function of torch.distributed, called
as its users call it, on what "bytes" says of the largest tensor of one rank.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

import atoll.distributed  # noqa: F401 - makes the backend known
from atoll.measure import timed

# Grows by the number of members with every all-reduce in place: never zero, never infinite.
TINY = 2.0**-100
# Of 8 members, and of sums that small, far more than any turn asks for.
MOST_IN_PLACE = 70


def call_of(op: str, count: int, device: str) -> Callable[[], object]:
    """One call of `op`, on `count` floats."""
    with torch.device(device):
        call = _call_of(op, count)
    if device == "cpu":
        return call

    def until_there() -> None:
        call()
        torch.cuda.synchronize()

    return until_there


def _call_of(op: str, count: int) -> Callable[[], object]:
    size, rank = dist.get_world_size(), dist.get_rank()
    whole = torch.full((count // size * size,), TINY)
    part = torch.full((count // size,), TINY)
    match op:
        case "all_reduce":
            tensor = torch.full((count,), TINY)
            return lambda: dist.all_reduce(tensor)
        case "broadcast":
            return lambda: dist.broadcast(whole, 0)
        case "all_gather_into_tensor":
            return lambda: dist.all_gather_into_tensor(whole, part)
        case "reduce_scatter_tensor":
            return lambda: dist.reduce_scatter_tensor(part, whole)
        case "all_to_all_single":
            other = torch.empty_like(whole)
            return lambda: dist.all_to_all_single(other, whole)
        case "barrier":
            return dist.barrier
        case "send_recv":  # around the ring
            got = torch.empty_like(whole)

            def around() -> None:
                sent = dist.isend(whole, (rank + 1) % size)
                dist.recv(got, (rank - 1) % size)
                sent.wait()

            return around
    raise ValueError(f"unknown op {op}")


def measure(op: str, nbytes: int, iterations: int, warm_up: int, device: str) -> dict[str, object]:
    if iterations + warm_up > MOST_IN_PLACE:
        raise ValueError(f"at most {MOST_IN_PLACE} iterations a turn")
    call = call_of(op, nbytes // 4, device)
    dist.barrier()
    return dataclasses.asdict(timed(call, iterations, warm_up))


def main(backend: str, store: str, rank: str, members: str, device: str = "cpu") -> int:
    torch.set_num_threads(1)
    dist.init_process_group(
        backend,
        init_method=f"file://{store}",
        rank=int(rank),
        world_size=int(members),
        timeout=timedelta(minutes=10),
    )
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        found = measure(asked["op"], asked["bytes"], asked["iterations"], asked["warm_up"], device)
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
