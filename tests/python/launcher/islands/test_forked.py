"""An island dies whose data loader's workers live on: they keep nothing of it alive."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from launched import Launch, wait_for_death

pytestmark = pytest.mark.processes

# Forks as a DataLoader does, in the middle of its training. The child would live for ever.
FORKS = """
import os, signal
import torch, atoll

with atoll.join() as session:
    for round_ in range(1, 1_000_000):
        session.all_reduce(torch.ones(4)).wait()
        if round_ == 5 and os.environ["ATOLL_ISLAND"] == "island-1":
            child = os.fork()
            if child == 0:
                signal.pause()
            print("child", child, flush=True)
            session.report(round=7, phase="training", contributed=True)
"""


@pytest.mark.slow
def test_a_worker_that_outlives_its_island_does_not_hide_its_death(
    launch: Launch, script: Callable[[str], str]
) -> None:
    environment = {**os.environ, "ATOLL_SHARED_MEMORY": "0"}  # there the kernel tells otherwise
    launcher = launch("run", "--standalone", "--islands=2", script(FORKS), env=environment)
    victim = launcher.wait_for("started", island="island-1")["pid"]
    launcher.wait_for("report", island="island-1", round=7)
    log = (launcher.log_dir / "island-1.log").read_text()
    child = int(log.split("child ")[1].split()[0])
    try:
        os.kill(victim, signal.SIGKILL)
        left = launcher.wait_for("left", island="island-1")
        os.kill(child, 0)  # it lives
        assert left["reason"] == "crashed", left
        assert "its connection broke and island-0 lost its link with it" in left["message"]
    finally:
        os.kill(child, signal.SIGKILL)
        wait_for_death(child)
    launcher.process.send_signal(signal.SIGTERM)
    launcher.end()
