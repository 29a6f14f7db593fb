"""The data-parallel script as a user runs it, alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "train_ddp.py"
SMALL = "--steps 41 --layers 1 --width 16 --block 32 --lr 0.01 --max-bytes 200000"

pytestmark = [pytest.mark.processes, pytest.mark.training]


def test_alone_it_trains_and_two_runs_are_equal() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
    runs = [
        subprocess.run(
            [sys.executable, str(SCRIPT), *SMALL.split()],
            env={**env, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        for _ in range(2)
    ]
    assert [(run.returncode, run.stderr) for run in runs] == [(0, ""), (0, "")]
    losses = [float(text) for text in re.findall(r"loss ([\d.]+), 1 replicas", runs[0].stdout)]
    assert len(losses) == 3
    assert losses[-1] < losses[0] - 0.5
    assert runs[0].stdout == runs[1].stdout
