"""One process on a host of the laboratory: hivemind's member of an averaging, to compare with.

Started by wan_group.py as wan_island.py is, by an interpreter that has hivemind (`--hivemind` of
wan_measure.py); nothing of atoll is imported here. It answers {"do": "address"} with where it can
be reached, {"do": "meet", "peers": [...]} by joining their DHT, and {"do": "all_reduce"} with the
seconds from when a group has formed to its average: what forming it takes is in `formed_s`.

    wan_hivemind.py ADDRESS MEMBERS
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from hivemind import DHT
from hivemind.averaging import DecentralizedAverager
from hivemind.averaging.control import AveragingStage

MATCHMAKING_S = 2.0
LOOK_S = 0.002


class Member:
    """Of the DHT, and of one averaging after the other."""

    def __init__(self, address: str, members: int):
        self._maddr = f"/ip4/{address}/tcp/0"
        self._members = members
        self._dht: DHT | None = None

    def meet(self, peers: list[str]) -> None:
        self._dht = DHT(host_maddrs=[self._maddr], initial_peers=peers, start=True)

    def address(self) -> list[str]:
        self.meet([])
        assert self._dht is not None
        return [str(one) for one in self._dht.get_visible_maddrs()]

    def all_reduce(self, nbytes: int, iterations: int, warm_up: int) -> dict[str, Any]:
        averager = DecentralizedAverager(
            [torch.full((nbytes // 4,), 0.5)],
            self._dht,
            start=True,
            prefix=f"wan{nbytes}",
            target_group_size=self._members,
            min_group_size=self._members,
            min_matchmaking_time=MATCHMAKING_S,
            request_timeout=MATCHMAKING_S / 2,
        )
        times, formed = [], []
        for number in range(warm_up + iterations):
            begun_s = time.monotonic()
            step = averager.step(wait=False, timeout=120)
            while step.stage.value < AveragingStage.RUNNING_ALLREDUCE.value:
                time.sleep(LOOK_S)
            running_s = time.monotonic()
            group = step.result()
            if len(group) != self._members:
                raise ValueError(f"a group of {len(group)}")
            if number >= warm_up:
                formed.append(running_s - begun_s)
                times.append(time.monotonic() - running_s)
        averager.shutdown()
        return {"times_s": times, "formed_s": formed}


def main() -> None:
    torch.set_num_threads(1)
    member = Member(sys.argv[1], int(sys.argv[2]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        match asked["do"]:
            case "address":
                answer: Any = member.address()
            case "meet":
                answer = member.meet(asked["peers"])
            case "all_reduce":
                answer = member.all_reduce(asked["bytes"], asked["iterations"], asked["warm_up"])
            case other:
                raise ValueError(f"nobody knows how to {other}")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
