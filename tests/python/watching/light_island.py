"""An island that does nothing but meet the others: it is there in a moment, without torch."""

from __future__ import annotations

import time

import atoll

PAUSE_S = 0.02

if __name__ == "__main__":
    with atoll.join() as session:
        while True:
            session.barrier()
            time.sleep(PAUSE_S)
