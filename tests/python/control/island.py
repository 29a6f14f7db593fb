"""A process that runs barriers and says each one's number and view; killed by its test."""

from __future__ import annotations

import sys
import time

import harness

from atoll import _core
from atoll.membership.messages import Departure


def main(ports: str, name: str, pause_s: float) -> None:
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports.split(","))
    client = harness.client(0, name, coordinator=addresses)
    client.start()
    client.ready()
    client.wait(lambda now: now.member, harness.TIMEOUT_S)
    client.holding()
    engine = client.engine
    while True:
        try:
            op = engine.barrier(0)
            outcome = engine.wait(op, int(60e9))
            engine.release(op)
        except _core.CoreError:  # closed between two ops
            outcome = None
        if outcome is None or outcome.code != "ok":
            print("end", type(client.membership().ended).__name__, flush=True)
            return
        print(outcome.sequence, outcome.epoch, flush=True)
        time.sleep(pause_s)
        if sys.stdin in harness.readable(sys.stdin):
            client.leave(Departure.DRAINED, harness.TIMEOUT_S)
            client.close()
            engine.close()
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
