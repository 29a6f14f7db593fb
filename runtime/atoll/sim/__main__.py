"""`python -m atoll.sim`: replay one seed, or look for a bad one."""

from __future__ import annotations

import argparse
import sys
import time

from atoll.sim.checks import Violation
from atoll.sim.run import simulate


def main() -> int:
    """Returns 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m atoll.sim")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--trace", action="store_true", help="say what happens")
    options = parser.parse_args()
    out = sys.stdout.write

    def say(line: str) -> None:
        out(line + "\n")

    trace = say if options.trace else None
    bad = 0
    began_s = time.perf_counter()
    for seed in range(options.seed, options.seed + options.seeds):
        try:
            summary = simulate(seed, trace=trace)
        except Violation as violation:
            bad += 1
            out(f"seed {seed}: {violation}\n")
        else:
            if options.seeds == 1:
                out(f"{summary}\n")
    out(f"{options.seeds} seeds, {bad} bad, {time.perf_counter() - began_s:.1f} s\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
