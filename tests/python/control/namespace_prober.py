"""One island of test_namespaces.py: links with all others, then probes whom it is told to.

    namespace_prober.py RANK MEMBERS, in a namespace whose address is 10.77.0.(RANK + 1)

Says "linked", then for each rank that it reads: bytes per second and the round trip in seconds.
"""

from __future__ import annotations

import select
import sys

from atoll import _core

PORT = 7000
TIMEOUT_S = 60.0


def peer(rank: int) -> bytes:
    return bytes([rank + 1]) * 16


def main() -> None:
    mine, members = int(sys.argv[1]), int(sys.argv[2])
    engine = _core.Engine(
        peer=peer(mine),
        secret=bytes(32),
        bind_host=f"10.77.0.{mine + 1}",
        bind_port=PORT,
        dial_timeout_s=TIMEOUT_S,
    )
    for other in range(members):
        if other > mine:
            engine.expect(peer(other))
        elif other < mine:
            engine.dial(peer(other), f"10.77.0.{other + 1}", PORT)
    up = 0
    while up < members - 1:
        if not select.select([engine.event_fd], [], [], TIMEOUT_S)[0]:
            sys.exit("no link in time")
        up += sum(isinstance(event, _core.LinkUp) for event in engine.take_events())
    print("linked", flush=True)
    for line in sys.stdin:
        op = engine.probe(peer(int(line)), duration_s=0.4)
        outcome = engine.wait(op, int(TIMEOUT_S * 1e9))
        if outcome is None or outcome.code != "ok":
            sys.exit(f"the probe failed: {outcome}")
        engine.release(op)
        print(outcome.bytes_per_s, outcome.round_trip_ns / 1e9, flush=True)


if __name__ == "__main__":
    main()
