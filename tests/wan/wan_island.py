"""One process on a host of the laboratory: ours, gloo's or hivemind's member of an all-reduce.

Started by wan_group.py, never by hand. It joins its group, says {"ready": true}, and does what each
line of JSON on its standard input asks for, with a line in answer. All members of a group get the
same lines at the same time. The end of the input is the end of the process.

    wan_island.py atoll                       ATOLL_* set
    wan_island.py gloo ADDRESS PORT RANK MEMBERS
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from wan_training import train

from atoll.measure import timed

Answer = Callable[[dict[str, Any]], dict[str, Any]]
TOLERANCE = 0.1
"""Of sums of equal numbers, with codecs of few bits."""


def atoll() -> tuple[Answer, Callable[[], None]]:
    import atoll

    session = atoll.join({"metrics_port": -1})

    def all_reduce(asked: dict[str, Any]) -> dict[str, Any]:
        source = torch.full((asked["bytes"] // 4,), 0.5)
        target = torch.zeros_like(source)
        options = {key: asked[key] for key in ("codec", "plan") if asked.get(key)}
        outcomes: list[Any] = []

        def operation() -> None:
            handle = session.all_reduce(source, target, **options)
            outcomes[:] = [handle.wait()]

        session.barrier()
        samples = timed(operation, asked["iterations"], asked["warm_up"])
        # The session may have seen another view since.
        exact = 0.5 * outcomes[0].contributors
        if not abs(target[-1].item() / exact - 1) < TOLERANCE:
            raise ValueError(f"wrong sum: {target[-1].item()} is not {exact}")
        return {**dataclasses.asdict(samples), "plan": outcomes[0].plan}

    def rounds(asked: dict[str, Any]) -> dict[str, Any]:
        """One op after the other, until all members are there again, of whom one was missing."""
        source = torch.full((asked["bytes"] // 4,), 0.5)
        times: list[tuple[float, float]] = []
        was_missing = asked["late"]
        while True:
            began_s = time.time()
            there = session.all_reduce(source, torch.empty_like(source)).wait().contributors
            times.append((began_s, time.time() - began_s))
            if there < asked["members"]:
                was_missing = True
            elif was_missing:
                return {"rounds": times}

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        match asked["do"]:
            case "meet":
                session.barrier()
                return {}
            case "rounds":
                return rounds(asked)
            case "all_reduce":
                return all_reduce(asked)
            case "train":
                return train(session, asked)
            case "measure_links":
                session.measure_links()
                return {}
            case "state":
                links = session.engine.stats().links
                return {
                    "epoch": session.view.epoch,
                    "members": session.size,
                    "links": [[one.connections, one.sent_bytes] for one in links],
                    "paces": [one.pace_bytes_per_s for one in links],
                }
        raise ValueError(f"nobody knows how to {asked['do']}")

    return answer, session.close


def gloo(address: str, port: str, rank: str, members: str) -> tuple[Answer, Callable[[], None]]:
    """In place, as dist.all_reduce is called."""
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=f"tcp://{address}:{port}",
        rank=int(rank),
        world_size=int(members),
        timeout=timedelta(minutes=10),
    )

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        tensor = torch.full((asked["bytes"] // 4,), 2.0**-100)
        dist.barrier()
        samples = timed(lambda: dist.all_reduce(tensor), asked["iterations"], asked["warm_up"])
        return dataclasses.asdict(samples)

    return answer, dist.destroy_process_group


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    kind, *rest = arguments
    answer, close = {"gloo": gloo, "atoll": atoll}[kind](*rest)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
    close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
