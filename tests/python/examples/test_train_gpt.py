"""The training script as a user runs it: a process of its own, alone, no job in the environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "train_gpt.py"

pytestmark = [pytest.mark.processes, pytest.mark.training]

SMALL = "--rounds 3 --sync-every 4 --layers 1 --width 16 --block 32 --lr 0.01 --max-bytes 200000"


def train(log_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL.split(), *words],
        env={**env, "ATOLL_LOG_DIR": str(log_dir), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_alone_it_trains_and_two_runs_are_equal(tmp_path: Path) -> None:
    runs = [train(tmp_path) for _ in range(2)]
    assert [(run.returncode, run.stderr) for run in runs] == [(0, ""), (0, "")]
    losses = [float(text) for text in re.findall(r"validation loss ([\d.]+)", runs[0].stdout)]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert runs[0].stdout == runs[1].stdout


def test_an_unknown_option_is_an_error(tmp_path: Path) -> None:
    run = train(tmp_path, "--widht", "8")
    assert run.returncode == 2
    assert "unrecognized arguments: --widht" in run.stderr


@pytest.mark.parametrize("method", ["streaming", "sparseloco"])
def test_other_methods_train_too(tmp_path: Path, method: str) -> None:
    run = train(tmp_path, "--method", method)
    assert (run.returncode, run.stderr) == (0, "")
    losses = [float(text) for text in re.findall(r"validation loss ([\d.]+)", run.stdout)]
    assert losses[-1] < losses[0]
