"""The collectives in a real job: processes that `atoll run` starts, one of which is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, json, os, pathlib, signal, sys, time
import torch, atoll

folder = pathlib.Path(sys.argv[1])
with atoll.join({"metrics_port": -1}) as session:
    while session.start_barrier().wait(60).members < 3:
        time.sleep(0.02)
    rank, found = session.rank, {}
    x = torch.arange(1000.0) + rank
    total = session.all_reduce(x, codec="int8", op="avg").result(60)
    found["avg"] = float((total - torch.arange(1000.0) - 1).abs().max())
    found["bits"] = total.view(torch.int32).sum().item()
    found["rows"] = [len(one) for one in session.all_gather_list(torch.ones(rank, 2)).result(60)]

    async def many():
        return await asyncio.gather(*(session.all_reduce(x[:5], channel=n % 4) for n in range(20)))

    found["many"] = [float(one[0]) for one in asyncio.run(many())]
    if rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    changes = []
    while True:
        try:
            gathered = session.all_gather(torch.full((2,), float(rank))).result(60)
            break
        except atoll.errors.ViewChanged as change:
            changes.append([change.before, change.after])
    found |= {"changes": changes, "gathered": gathered.tolist()}
    folder.joinpath(f"{rank}.json").write_text(json.dumps(found))
"""


@pytest.mark.processes
def test_a_job_of_three_of_which_one_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    options = ["--islands", "3", "--min-islands", "1", "--max-restarts", "0", "--threads", "1"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "atoll_launcher", "run", "--standalone", "--plain", *options),
            *("--log-dir", str(tmp_path / "logs"), str(script), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    results = [tmp_path / "0.json", tmp_path / "1.json"]
    assert all(path.exists() for path in results), done.stdout + done.stderr
    first, second = (json.loads(path.read_text()) for path in results)
    assert first == second
    assert first["avg"] < 5.0
    assert first["rows"] == [0, 1, 2]
    assert first["many"] == [3.0] * 20
    assert first["changes"] in ([], [[3, 2]])  # none: the loss was known before the call
    assert first["gathered"] == [[0.0, 0.0], [1.0, 1.0]]
