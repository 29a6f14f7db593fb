"""One peer of hivemind's averaging. Started by groups.py, in the peers' environment.

    averaging_hivemind.py FOLDER RANK MEMBERS     FOLDER: where the first peer says where it is

It speaks as allreduce_worker.py does. Groups are full at `MEMBERS` peers, so nobody waits longer
for others than they take to come; everything else is hivemind's default.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import hivemind
import torch


def met(folder: Path, rank: int) -> hivemind.DHT:
    place = folder / "first"
    if rank == 0:
        dht = hivemind.DHT(start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"])
        part = folder / "part"
        part.write_text(json.dumps([str(address) for address in dht.get_visible_maddrs()]))
        part.rename(place)
        return dht
    while not place.exists():
        time.sleep(0.05)
    return hivemind.DHT(
        start=True,
        host_maddrs=["/ip4/127.0.0.1/tcp/0"],
        initial_peers=json.loads(place.read_text()),
    )


def main() -> None:
    folder, rank, members = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    dht = met(folder, rank)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        averager = hivemind.averaging.DecentralizedAverager(
            [torch.full((asked["bytes"] // 4,), float(rank))],
            dht,
            start=True,
            prefix="peers",
            target_group_size=members,
            min_group_size=members,
        )
        times = []
        for _ in range(asked["iterations"] + asked["warm_up"]):
            began = time.perf_counter()
            group = averager.step(timeout=60)
            times.append(time.perf_counter() - began)
            if group is None or len(group) != members:
                raise ValueError(f"a group of {group and len(group)}, not of {members}")
        with averager.get_tensors() as (tensor,):
            if abs(tensor[-1].item() - (members - 1) / 2) > 1e-3:
                raise ValueError(f"the mean is {tensor[-1].item()}")
        averager.shutdown()
        answer = {"times_s": times[asked["warm_up"] :], "cpu_s": 0.0, "sleeps": 0}
        print(json.dumps(answer), flush=True)
    dht.shutdown()


if __name__ == "__main__":
    main()
