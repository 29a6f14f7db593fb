"""Our all-reduce beside gloo's on this machine: medians, ratios, CPU seconds, side by side.

    .venv/bin/python bench/python/allreduce.py            (or: make bench)

The two take turns, size by size and several times over, so that a drift of the machine's speed
hits both. Judge by the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

WORKER = Path(__file__).with_name("allreduce_worker.py")
SIZES = [1 << 10, 1 << 20, 1 << 24, 1 << 28]


@dataclass(slots=True)
class Sample:
    times_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def add(self, line: str) -> None:
        value = json.loads(line)
        self.times_s += value["times_s"]
        self.cpu_s += value["cpu_s"]

    @property
    def median_s(self) -> float:
        return statistics.median(self.times_s)

    @property
    def cpu_per_op_s(self) -> float:
        return self.cpu_s / len(self.times_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def worker(backend: str, size: int, iterations: int, plan: str) -> list[str]:
    return [
        *(str(WORKER), "--backend", backend, "--sizes", str(size)),
        *("--iterations", str(iterations), "--plan", plan),
    ]


def run_atoll(members: int, size: int, iterations: int, plan: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "atoll_launcher.main", "run", "--standalone", "--plain"),
                *("--islands", str(members), "--max-restarts", "0", "--threads", "1"),
                *("--log-dir", folder, "--metrics-port", "-1", "--quiet"),
                *worker("atoll", size, iterations, plan),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=300,
        )
        logs = [path.read_text() for path in Path(folder).glob("island-*.log")]
    (line,) = [line for log in logs for line in log.splitlines() if line.startswith("{")]
    return line


def run_gloo(members: int, size: int, iterations: int) -> str:
    port = str(free_port())
    ranks = []
    for rank in range(members):
        env = {
            **os.environ,
            **{"RANK": str(rank), "WORLD_SIZE": str(members), "OMP_NUM_THREADS": "1"},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"},
        }
        command = [sys.executable, *worker("gloo", size, iterations, "auto")]
        ranks.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    texts = [rank.communicate(timeout=300)[0] for rank in ranks]
    (line,) = [line for text in texts for line in text.splitlines() if line.startswith("{")]
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=5, help="a turn, at least")
    parser.add_argument("--plan", default="auto")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    print("members     bytes   gloo ms   ours ms   gloo/ours   cpu: gloo ms   ours ms")
    for members in args.members:
        for size in args.sizes:
            theirs, ours = Sample(), Sample()
            for _ in range(args.turns):
                theirs.add(run_gloo(members, size, args.iterations))
                ours.add(run_atoll(members, size, args.iterations, args.plan))
            ratio = theirs.median_s / ours.median_s
            print(
                f"{members:7} {size:9} {theirs.median_s * 1e3:9.2f} {ours.median_s * 1e3:9.2f}"
                f" {ratio:11.2f} {theirs.cpu_per_op_s * 1e3:14.2f} {ours.cpu_per_op_s * 1e3:9.2f}",
                flush=True,
            )
    print(f"load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
