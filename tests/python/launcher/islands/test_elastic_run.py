"""`atoll run --elastic`: a worker dies and comes again while it runs, and everybody can see it."""

from __future__ import annotations

import ast
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll_launcher.main import main
from launched import Launch

pytestmark = pytest.mark.processes

Script = Callable[[str], str]

TRAINS = """
import os, signal, sys
import torch
import atoll

torch.set_num_threads(1)
torch.manual_seed(3)
layers = [torch.nn.Linear(8, 8) for _ in range(4)]

def batch(step, micro_batch):
    made = torch.Generator().manual_seed(1000 * step + micro_batch)
    return torch.rand(2, 8, generator=made), torch.rand(2, 8, generator=made)

with atoll.join() as session:
    island = atoll.ElasticIsland(
        session, layers=layers, micro_batches=4, pipeline=2, batch=batch,
        loss=lambda y, t: (y - t).square().sum(), tokens=8, vshards=6,
    )
    first = os.environ["ATOLL_RESTART"] == "0"
    while island.step < 100:
        if first and session.island == "island-1" and island.step == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        if first and island.step == 60:
            # The others wait for the one that comes again, and end with it.
            session._client.wait(lambda now: len(now.view.members) == 3, 60.0)
        loss = island.train_step()
    print("loss", repr(loss), "at", island.step, flush=True)
    island.close()
"""


def test_a_worker_dies_and_comes_again(launch: Launch, script: Script, tmp_path: Path) -> None:
    launcher = launch("run", "--elastic", "--workers", "3", script(TRAINS))
    code, out, err = launcher.end()
    assert (code, err) == (0, "")
    told = {kind: [e for e in launcher.events if e["kind"] == kind] for kind in KINDS}
    layouts = [e["message"] for e in told["layout"]]
    assert layouts[0].startswith("2 stages: layers 0-2 on 2 (2+2 micro-batches), layers 3-3 on 1")
    assert any("on 1 (4 micro-batches), layers 2-3 on 1" in text for text in layouts)
    assert "on 2" in layouts[-1]
    assert told["recovery"]
    assert all("agree" in e["message"] for e in told["recovery"])
    paces = [e["message"] for e in told["throughput"]]
    assert any("with 2 workers" in text and text.endswith("before") for text in paces)
    losses = {ast.literal_eval(line.split()[3]) for line in out.splitlines() if "| loss" in line}
    assert len(losses) == 1, "all three end with the same loss"


LEAVES = """
import torch
import atoll

torch.set_num_threads(1)
torch.manual_seed(3)
layers = [torch.nn.Linear(8, 8) for _ in range(4)]

def batch(step, micro_batch):
    made = torch.Generator().manual_seed(1000 * step + micro_batch)
    return torch.rand(2, 8, generator=made), torch.rand(2, 8, generator=made)

with atoll.join() as session:
    island = atoll.ElasticIsland(
        session, layers=layers, micro_batches=4, pipeline=2, batch=batch,
        loss=lambda y, t: (y - t).square().sum(), tokens=8, vshards=6,
    )
    while not island.over:
        if island.step == 3 and session.island == "island-1":
            session.drain("its disk is full")
        island.train_step()
    left = len(island.layout.workers)
    island.close()
    print("left", left, "at", island.step, flush=True)
"""


def test_workers_leave_politely_one_alone_and_all_together(
    launch: Launch, script: Script, tmp_path: Path
) -> None:
    launcher = launch("run", "--elastic", "--workers", "3", script(LEAVES))
    assert launcher.wait_for("left", island="island-1")["reason"] == "drained"
    launcher.process.send_signal(signal.SIGTERM)  # to all that are left, by the launcher
    code, out, err = launcher.end()
    assert (code, err) == (0, "")
    (alone,) = (line.split("left ")[1] for line in out.splitlines() if "island-1 | left" in line)
    assert alone == "2 at 5", "told in the fourth step, moved out in the fifth"
    rest = [line.split("left ")[1] for line in out.splitlines() if "| left " in line]
    rest.remove(alone)
    assert len(rest) == 2
    assert rest[0] == rest[1], "both after the same step"
    exits = [e["code"] for e in launcher.events if e["kind"] == "exited"]
    assert exits == [0, 0, 0]


KINDS = ("layout", "recovery", "throughput")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--elastic"], "--elastic needs --workers N"),
        (["--standalone", "--workers", "3"], "--workers is for --elastic"),
        (["--elastic", "--workers", "3", "--islands", "3"], "--islands is not for --elastic"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments, "script.py"]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1
