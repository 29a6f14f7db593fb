"""Islands of several processes: started together, one process group each, ended together."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from launched import Launch

pytestmark = pytest.mark.processes

Script = Callable[[str], str]

TRAIN = """
import os, pathlib, sys
import torch
import torch.distributed as dist
import atoll

stop, label = pathlib.Path(sys.argv[1]), os.environ["ATOLL_ISLAND"] + "." + os.environ["RANK"]
dist.init_process_group("gloo")
with atoll.join() as session:
    assert (session.shard, session.shards) == (dist.get_rank(), dist.get_world_size()) == (
        int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    rounds, last, over = 0, 0, torch.zeros(1)
    while not over:
        x = torch.tensor([1.0, 1.0 + session.shard, float(stop.exists())])
        islands, shards, stops = session.all_reduce(x).result(60).tolist()
        assert shards == islands * (1 + session.shard), "another shard's number is in the sum"
        over = torch.tensor([stops])
        dist.all_reduce(over)  # the shards of an island go on together
        rounds += 1
        if rounds == 4:
            session.report(phase="training")
        if islands != last:
            print("islands", int(islands), flush=True)
        last = islands
    print("rounds", rounds > 3, flush=True)
dist.destroy_process_group()
"""


def seen(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith(("islands", "rounds"))]


def test_a_killed_shard_takes_its_island_out_and_the_island_comes_back(
    launch: Launch, script: Script, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    options = ["--islands=2", "--nproc-per-node=2", "--min-islands=2", "--threads=1"]
    launcher = launch("run", "--standalone", *options, script(TRAIN), str(stop))
    pids = launcher.wait_for("started", island="island-1")["pids"]
    launcher.wait_for("report", island="island-1", phase="training")
    os.kill(int(pids[1]), signal.SIGKILL)
    ended = launcher.wait_for("exited", island="island-1")
    assert (ended["pid"], ended["signal"]) == (int(pids[1]), signal.SIGKILL)
    left = launcher.wait_for("left", island="island-1")
    assert left["reason"] == "crashed"
    assert "shard 1: " in left["message"]
    assert launcher.wait_for("started", island="island-1")["attempt"] == 1
    launcher.wait_for("report", island="island-1", phase="training")
    stop.touch()
    code, out, err = launcher.end()
    assert (code, err) == (0, ""), out
    assert "finished: 2 of 2 islands finished" in out
    for shard in range(2):
        survivor = seen(launcher.log_dir / f"island-0.{shard}.log")
        assert survivor == ["islands 2", "islands 1", "islands 2", "rounds True"]
        assert seen(launcher.log_dir / f"island-1.{shard}.log")[-1] == "rounds True"


def test_a_shard_that_fails_ends_its_island(launch: Launch, script: Script) -> None:
    path = script(
        "import os, signal\n"
        "print(os.environ['MASTER_ADDR'], os.environ['WORLD_SIZE'], flush=True)\n"
        "if os.environ['RANK'] == '1': raise SystemExit(3)\n"
        "signal.pause()\n"
    )
    options = ["--nproc_per_node=3", "--max-restarts=0"]
    launcher = launch("run", "--standalone", *options, path)
    assert launcher.wait_for("exited")["code"] == 3
    code, out, _ = launcher.end()
    assert code != 0
    assert "island-0.1 | 127.0.0.1 3" in out
