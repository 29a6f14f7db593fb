"""One rank of an all-reduce benchmark: ours (ATOLL_* set) or gloo's (RANK, WORLD_SIZE, MASTER_*).

Prints one line of JSON per size on rank 0: seconds of each iteration, CPU seconds of all ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

import torch


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(reduce: Callable[[], None], iterations: int, warm_up: int) -> tuple[list[float], float]:
    """Seconds of each iteration, CPU seconds of all of them in this process."""
    for _ in range(warm_up):
        reduce()
    began, times = cpu_s(), []
    for _ in range(iterations):
        start = time.perf_counter()
        reduce()
        times.append(time.perf_counter() - start)
    return times, cpu_s() - began


def iterations_for(nbytes: int, wanted: int) -> int:
    return wanted if nbytes > 1 << 24 else max(wanted, 30)


def ours(sizes: list[int], wanted: int, plan: str) -> None:
    import atoll

    with atoll.join({"metrics_port": -1}) as session:
        session.barrier()
        for nbytes in sizes:
            source = torch.ones(nbytes // 4)
            target = torch.empty_like(source)
            times, cpu = measure(
                lambda s=source, t=target: session.all_reduce(s, t, plan=plan).wait(),  # type: ignore[misc]
                iterations_for(nbytes, wanted),
                3,
            )
            assert target[-1].item() == session.size
            total = session.all_reduce(torch.tensor([cpu]))
            total.wait()
            assert total.target is not None
            if session.rank == 0:
                line = {"bytes": nbytes, "times_s": times, "cpu_s": total.target.item()}
                print(json.dumps(line), flush=True)


def gloo(sizes: list[int], wanted: int) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    for nbytes in sizes:
        tensor = torch.ones(nbytes // 4)
        times, cpu = measure(
            lambda t=tensor: dist.all_reduce(t),  # type: ignore[misc]
            iterations_for(nbytes, wanted),
            3,
        )
        total = torch.tensor([cpu])
        dist.all_reduce(total)
        if dist.get_rank() == 0:
            print(
                json.dumps({"bytes": nbytes, "times_s": times, "cpu_s": total.item()}), flush=True
            )
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=["atoll", "gloo"], required=True)
    parser.add_argument("--sizes", type=int, nargs="+", required=True)
    parser.add_argument("--iterations", type=int, default=9)
    parser.add_argument("--plan", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if args.backend == "gloo":
        gloo(args.sizes, args.iterations)
    else:
        ours(args.sizes, args.iterations, args.plan)


if __name__ == "__main__":
    main()
