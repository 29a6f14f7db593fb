"""One member of the recovery benchmark. Started by recovery.py, never by hand.

    recovery_worker.py BYTES TIMES_FILE STATE_MIB      ATOLL_* set

It imports what it needs, says "imported", and joins when a line comes on its standard input. With
a state, it fetches or brings that. Then it all-reduces without a pause, and writes when it began to
join, how long fetching took and each op's end into the file, which others may read at any time,
also after a SIGKILL. It runs until somebody ends it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

import atoll
import atoll.control.client  # like the next ones, otherwise imported by join()
import atoll.session
import atoll.state.tensors
from atoll import _core

# Records of the newest commits; a record: time (s, monotonic clock), epoch, members.
RECORDS = 4096


def open_records(path: Path) -> tuple[np.memmap, np.memmap]:
    """Return the head (0: when it began to join, 1: number of commits, 2: seconds of fetching) and
    the records."""
    size = (3 + RECORDS * 3) * 8
    if not path.exists() or path.stat().st_size != size:
        path.write_bytes(bytes(size))
    head = np.memmap(path, dtype=np.float64, mode="r+", shape=(3,))
    records = np.memmap(path, dtype=np.float64, mode="r+", offset=24, shape=(RECORDS, 3))
    return head, records


def main() -> None:
    nbytes, path, state_mib = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    head, records = open_records(path)
    source = torch.ones(nbytes // 4)
    target = torch.zeros_like(source)
    weights = torch.ones(state_mib << 18)
    torch.set_num_threads(1)
    assert _core.__name__
    print("imported", flush=True)
    if not sys.stdin.readline():
        return
    head[0] = time.monotonic()
    session = atoll.join({"metrics_port": -1})
    if state_mib:
        if session.settings.island == "island-1":
            weights.normal_()
        session._state_fetched = lambda fetched: head.put(2, fetched.seconds)  # type: ignore[method-assign]
        atoll.state.tensors.SharedTensors(session, {"weights": weights}, channel=1)
    count = 0
    while True:
        outcome = session.all_reduce(source, target).wait()
        if target[0] != outcome.members or target[-1] != outcome.members:
            raise ValueError(f"the sum of {outcome.members} ones is {target[0]}, {target[-1]}")
        records[count % RECORDS] = (time.monotonic(), outcome.epoch, outcome.members)
        count += 1
        head[1] = count


if __name__ == "__main__":
    main()
