"""`python -m atoll.sim`: replay one seed, look for a bad one, or try all orders of a small job."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from atoll.sim.cases import FULL, QUICK
from atoll.sim.checks import Violation
from atoll.sim.explore import explore
from atoll.sim.run import simulate
from atoll.sim.states import Case


def main() -> int:
    """Returns 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m atoll.sim")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--trace", action="store_true", help="say what happens")
    parser.add_argument("--explore", action="store_true", help="try every order of small jobs")
    parser.add_argument("--full", action="store_true", help="with --explore: larger ones, minutes")
    parser.add_argument("--case", choices=[case.name for case in FULL], help="with --explore: one")
    options = parser.parse_args()
    if options.explore:
        named = [case for case in FULL if case.name == options.case]
        return _explore(named or (FULL if options.full else QUICK))
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


def _explore(cases: Sequence[Case]) -> int:
    out = sys.stdout.write
    out(f"{'case':20}{'states':>9}{'moves':>10}{'paths':>10}{'ends':>7}{'CPU s':>7}  bounds\n")
    bad = 0
    for case in cases:
        began_s = time.process_time()
        try:
            found = explore(case)
        except Violation as violation:
            bad += 1
            out(f"{case.name}: {violation}\n")
            continue
        took_s = time.process_time() - began_s
        out(f"{case.name:20}{found.states:9}{found.moves:10}{found.paths:10.3g}")
        out(f"{found.ends:7}{took_s:7.1f}  {case.bounds}\n")
        sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
