"""A joiner behind a wide line fetches from members whose uplinks are narrow: from all at once.

    make bench-uplinks               how much faster three donors are than one
    make bench-uplinks UPLINKS_ARGS="--mib 48 --donors 2 4"

Members in network namespaces, each with a line of its own (tc tbf), train meanwhile. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from lines import HUB_ADDRESS, Lines, address_of, spaces

ISLAND = Path(__file__).with_name("uplink_island.py")
UPLINK_MBIT = 40
FETCHED = re.compile(r"fetched (\d+) bytes from (\d+) donors(?: \((.*?)\))? in ([0-9.]+) s")


def until(stream: IO[str] | None, text: str) -> str:
    """Return the line that has the text; the process's end is an error."""
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"no {text!r} in: {''.join(seen)}")


def fetch(donors: int, mib: int) -> tuple[float, list[int]]:
    """(seconds that a joiner's fetch took, percent that each donor gave). Checks what it got."""
    # The joiner's own line is as wide as all of theirs.
    lines = Lines(mbit=(UPLINK_MBIT,) * donors + (8 * UPLINK_MBIT,), sites=(0,) * (donors + 1))
    with spaces(lines) as (*names, hub), contextlib.ExitStack() as at_end:

        def start(space: str, *words: str, **environment: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                ["ip", "netns", "exec", space, sys.executable, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            )
            at_end.callback(process.communicate)
            at_end.callback(process.kill)
            return process

        def island(rank: int, kind: str) -> subprocess.Popen[str]:
            return start(
                names[rank],
                *(str(ISLAND), str(mib), kind),
                ATOLL_COORDINATOR=f"{HUB_ADDRESS}:29400",
                ATOLL_JOB="reef",
                ATOLL_ISLAND=f"island-{rank}",
                ATOLL_INSECURE="1",  # the network is the test's own
                ATOLL_BIND_HOST="0.0.0.0",
                ATOLL_ADVERTISE_HOST=address_of(rank),
                ATOLL_METRICS_PORT="-1",
                ATOLL_PROBE="0",
            )

        coordinator = start(
            hub,
            *("-m", "atoll.coordinator", "--job", "reef", "--listen", f"{HUB_ADDRESS}:29400"),
            "--insecure",
            *("--store", "memory", "--min-islands", str(donors)),
        )
        until(coordinator.stdout, "listening")
        members = [island(rank, "member") for rank in range(donors)]
        held = {until(member.stdout, "holds").split()[1] for member in members}
        joiner = island(donors, "joiner")
        found = FETCHED.search(until(joiner.stdout, "shared state"))
        assert found is not None
        assert (int(found[1]), int(found[2])) == (mib << 20, donors)
        assert {until(joiner.stdout, "holds").split()[1]} == held
        return float(found[4]), [int(share) for share in re.findall(r"\d+", found[3] or "100")]


def main() -> None:
    parser = argparse.ArgumentParser(description="how much faster several narrow donors are")
    parser.add_argument("--mib", type=int, default=24, help="MiB of state")
    parser.add_argument("--donors", type=int, nargs="+", default=[3], help="beside one donor")
    chosen = parser.parse_args()
    one, _ = fetch(1, chosen.mib)
    print(f"1 donor: {one:.2f} s; its uplink alone {chosen.mib * 8.388608 / UPLINK_MBIT:.2f} s")
    for donors in chosen.donors:
        several, shares = fetch(donors, chosen.mib)
        gave = ", ".join(f"{share} %" for share in shares)
        print(f"{donors} donors ({gave}): {several:.2f} s, {one / several:.2f} times as fast")


if __name__ == "__main__":
    main()
