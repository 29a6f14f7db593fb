"""Kills islands of a real job at random moments of rounds and checks what must never break.

    python tests/python/processes/kill_rounds.py --islands 4 --kills 10 --seed 1

A launcher supervises the islands of `worker.py`, whose rounds are almost all transfer, and starts
again what dies. After every kill a new round must commit within the deadline; at the end the
journals of all islands must agree, bit for bit, and show every sample used exactly once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.data.journal import Audit, Entry, audit, parse, read

HERE = Path(__file__).parent
ROUND_DEADLINE_S = 60.0
START_DEADLINE_S = 120.0  # islands import torch first, all at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A job to be killed at."""

    islands: int = 3
    kills: int = 4
    seed: int = 0
    elements: int = 1_000_000
    samples: int = 6_000
    passes: int = 1
    plan: str = "auto"
    method: str = "diloco"
    """Of worker.py's."""
    device: str = "cpu"
    pause_s: float = 2.0
    """At most so long between a new round and the next kill."""


@dataclass(slots=True)
class Outcome:
    """`recoveries_s`: from each kill to the next round that committed anywhere."""

    exit_code: int | None = None
    recoveries_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rounds: int = 0


def run(options: Options, folder: Path) -> Outcome:
    """Runs one job to its end and checks it."""
    events = folder / "events.jsonl"
    command = [
        *(sys.executable, "-m", "atoll_launcher.main", "run", "--standalone", "--plain"),
        *("--islands", str(options.islands), "--max-restarts", "1000", "--threads", "1"),
        *("--log-dir", str(folder), "--events", str(events), str(HERE / "worker.py")),
        *("--elements", str(options.elements), "--samples", str(options.samples)),
        *("--epochs", str(options.passes), "--plan", options.plan),
        *("--method", options.method, "--device", options.device),
    ]
    outcome = Outcome()
    with (folder / "launcher.log").open("wb") as log:
        launcher = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _kill_at_random(options, folder, events, launcher, outcome)
        outcome.exit_code = launcher.wait()
    except TimeoutError as error:
        outcome.problems.append(f"hung: {error}")
    finally:
        if launcher.poll() is None:
            launcher.send_signal(signal.SIGINT)
            launcher.wait(10)
    found = _check(options, folder)
    outcome.rounds = found.rounds
    outcome.problems += found.problems
    if outcome.exit_code not in (0, None):
        outcome.problems.append(f"the launcher exited with {outcome.exit_code}")
    return outcome


def _kill_at_random(
    options: Options,
    folder: Path,
    events: Path,
    launcher: subprocess.Popen[bytes],
    outcome: Outcome,
) -> None:
    """Returns when the job is over. Raises TimeoutError when no round commits any more."""
    chance = random.Random(options.seed)
    seen, seen_at = 0, time.monotonic()
    kill_at, killed_at = float("inf"), None
    left = options.kills
    while launcher.poll() is None:
        time.sleep(0.01)
        now, newest = time.monotonic(), _last_round(folder)
        if newest > seen:
            if seen == 0:
                kill_at = now + chance.uniform(0.0, options.pause_s)
            if killed_at is not None:
                outcome.recoveries_s.append(now - killed_at)
                killed_at = None
                kill_at = now + chance.uniform(0.0, options.pause_s)
            seen, seen_at = newest, now
        elif now - seen_at > (limit_s := ROUND_DEADLINE_S if seen else START_DEADLINE_S):
            raise TimeoutError(f"no round after {seen} within {limit_s:.0f} s")
        if left and now >= kill_at:
            # Not the only one that holds the state: it would be gone, and the job begin anew.
            alive = _alive(events)
            victims = sorted(set(_up_to_date(folder, newest)) & set(alive))
            if len(victims) > 1:
                os.kill(alive[chance.choice(victims)], signal.SIGKILL)
                kill_at, killed_at, left = float("inf"), time.monotonic(), left - 1


def _newest_rounds(folder: Path) -> dict[str, int]:
    newest = {}
    for path in folder.glob("ledger-*.jsonl"):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            lines = file.read().split(b"\n")
        if len(lines) > 2:
            newest[path.stem.removeprefix("ledger-")] = parse(lines[-2].decode()).round
    return newest


def _last_round(folder: Path) -> int:
    return max(_newest_rounds(folder).values(), default=0)


def _up_to_date(folder: Path, newest: int) -> list[str]:
    return [name for name, number in _newest_rounds(folder).items() if number >= newest]


def _events(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _alive(path: Path) -> dict[str, int]:
    pids: dict[str, int] = {}
    for event in _events(path):
        if event["kind"] == "started":
            pids[event["island"]] = event["pid"]
        elif event["kind"] == "exited":
            pids.pop(event["island"], None)
    return pids


def _story(folder: Path) -> list[str]:
    """What the launcher said, without the rounds."""
    lines = (folder / "launcher.log").read_text(errors="replace").splitlines()
    return [line for line in lines if not line.startswith("round ")]


def _check(options: Options, folder: Path) -> Audit:
    journals: dict[str, list[Entry]] = read(folder)
    return audit(journals, samples=options.samples, passes=options.passes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, kind in Options.__annotations__.items():
        default = getattr(Options(), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
        del kind
    options = Options(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="atoll-kill-") as name:
        outcome = run(options, Path(name))
        if outcome.problems:
            print("\n".join(_story(Path(name))))
    times = " ".join(f"{seconds:.2f}" for seconds in outcome.recoveries_s)
    print(f"{outcome.rounds} rounds, exit {outcome.exit_code}; kill to next round, s: {times}")
    for problem in outcome.problems:
        print(f"BROKEN: {problem}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
