"""An island that holds a state, or a joiner that fetches it and says how it went.

    uplink_island.py MIB KIND        KIND: member, joiner; ATOLL_* set

A member trains all the while: small all-reduces, one after the other.
"""

from __future__ import annotations

import logging
import sys

import torch

import atoll


def main() -> None:
    mib, kind = int(sys.argv[1]), sys.argv[2]
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    generator = torch.Generator().manual_seed(7)
    weights = torch.zeros(mib << 18)
    if kind == "member":
        weights.normal_(generator=generator)
    with atoll.join() as session:
        state = atoll.SharedTensors(session, {"weights": weights})
        print("holds", f"{weights.double().abs().sum().item():.6f}", flush=True)
        while kind == "member":
            session.all_reduce(torch.ones(4), channel=7).wait()
    del state


if __name__ == "__main__":
    main()
