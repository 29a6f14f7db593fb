"""One member of a side-by-side benchmark: gloo's or ours. Started by groups.py, never by hand.

It joins its group, says {"ready": true}, and then measures what each line of JSON on its standard
input asks for ({"bytes", "iterations", "warm_up", "codec"}), and answers in one line. All members
of a group get the same lines. The end of the input is the end of the process.

    allreduce_worker.py gloo STORE RANK MEMBERS     STORE: a file for their first meeting
    allreduce_worker.py atoll                       ATOLL_* set
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from atoll.measure import timed

# Grows by the number of members with every all-reduce in place: never zero, never infinite.
TINY = 2.0**-100
# Of 8 members, and of sums that small, far more than any turn asks for.
MOST_IN_PLACE = 70
# What codecs of few bits may be off by, of sums of equal numbers.
TOLERANCE = 0.1

Measure = Callable[[dict[str, Any]], dict[str, Any]]


def gloo(store: str, rank: str, members: str) -> tuple[Measure, Callable[[], None]]:
    """In place, as dist.all_reduce is called."""
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=int(rank),
        world_size=int(members),
        timeout=timedelta(minutes=10),
    )
    tensor = torch.empty(0)

    def measure(asked: dict[str, Any]) -> dict[str, Any]:
        nonlocal tensor
        if asked["iterations"] + asked["warm_up"] > MOST_IN_PLACE:
            raise ValueError(f"at most {MOST_IN_PLACE} iterations a turn")
        if tensor.nbytes != asked["bytes"]:
            tensor = torch.empty(0)  # before the next one is made
            tensor = torch.empty(asked["bytes"] // 4)
        tensor.fill_(TINY)
        dist.barrier()
        samples = timed(lambda: dist.all_reduce(tensor), asked["iterations"], asked["warm_up"])
        grown = TINY * float(members) ** (asked["iterations"] + asked["warm_up"])
        if not abs(tensor[-1].item() / grown - 1) < 1e-3:
            raise ValueError(f"wrong sum: {tensor[-1].item()} is not {grown}")
        return dataclasses.asdict(samples)

    return measure, dist.destroy_process_group


def atoll() -> tuple[Measure, Callable[[], None]]:
    """Out of place, as session.all_reduce is called."""
    import atoll

    session = atoll.join({"metrics_port": -1})
    session.barrier()
    source = target = torch.empty(0)

    def measure(asked: dict[str, Any]) -> dict[str, Any]:
        nonlocal source, target
        if source.nbytes != asked["bytes"]:
            source = target = torch.empty(0)
            source = torch.full((asked["bytes"] // 4,), 0.5)
            target = torch.zeros_like(source)
        options = {} if asked.get("codec") is None else {"codec": asked["codec"]}
        session.barrier()
        samples = timed(
            lambda: session.all_reduce(source, target, **options).wait(),
            asked["iterations"],
            asked["warm_up"],
        )
        exact = 0.5 * session.size
        if not abs(target[-1].item() / exact - 1) < TOLERANCE:
            raise ValueError(f"wrong sum: {target[-1].item()} is not {exact}")
        return dataclasses.asdict(samples)

    return measure, session.close


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    kind, *rest = arguments
    measure, close = {"gloo": gloo, "atoll": atoll}[kind](*rest)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)
    close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
