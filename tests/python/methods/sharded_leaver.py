"""An island of two processes of which one alone is told to leave: both end after the same round.

    sharded_leaver.py FOLDER ISLAND

The second process of ISLAND is told in its third round, when it has trained and before they meet.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from sharded_island import OUTER, STEPS, inner_of, model, train
from torch import Tensor, nn

import atoll

ROUNDS = 6


class Numbers:
    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(6, generator=torch.Generator().manual_seed(index))


def main() -> None:
    folder, leaver = Path(sys.argv[1]), sys.argv[2]
    island, rank = os.environ["ATOLL_ISLAND"], int(os.environ["RANK"])
    dist.init_process_group("gloo")
    plain = model()
    trained = nn.parallel.DistributedDataParallel(plain)
    inner = inner_of(trained)
    with atoll.join({"metrics_port": -1}) as session:
        outer = atoll.DiLoCo(session, plain, inner, sync_every=STEPS, **OUTER)
        while session.size < 2:  # whoever comes late has no third round
            time.sleep(0.01)
        for batch in session.batches(Numbers(), batch_size=2, rounds=ROUNDS):
            train(trained, inner, batch)
            if outer.round == 2 and island == leaver and rank == 1:
                session.drain("its disk is full")
            outer.step()
        (folder / f"{island}.{rank}").write_text(str(outer.round))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
