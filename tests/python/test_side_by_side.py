"""bench/python/allreduce.py: gloo and ours really take turns; mistakes are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "bench" / "python" / "allreduce.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


@pytest.mark.processes
def test_gloo_and_ours_take_turns(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    options = ["--members", "2", "--sizes", "4KiB", "--turns", "2", "--iterations", "7"]
    done = run(*options, "--variants", "gloo", "tcp", "--json", str(raw))
    assert (done.returncode, done.stderr) == (0, "")
    assert "gloo / tcp" in done.stdout
    rows = json.loads(raw.read_text())["rows"]
    assert [(row["members"], row["bytes"], row["variant"]) for row in rows] == [
        (2, 4096, "gloo"),
        (2, 4096, "tcp"),
    ]
    for row in rows:
        # Seven by each of two members.
        assert [len(turn["times_s"]) for turn in row["turns"]] == [14, 14]
        assert row["median_s"] > 0
        assert row["cpu_s_per_op"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "large"], "--size large: expected bytes"),
        (["--sizes", "6"], "whole numbers of 4 bytes"),
        (["--members", "1"], "--members: from 2 to 8"),
        (["--iterations", "51"], "--iterations: from 1 to 50"),
        (["--variants", "mpi"], "invalid choice: 'mpi'"),
        (["--variants", "floor", "--floor", "nowhere"], "nowhere is not built; `make bench`"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]
