"""The training that all libraries do in the benchmark beside others: the same model, data and
records, whatever keeps the replicas together.

A worker is started as `WORKER RECORDS_FILE`. It imports what it needs, says "imported", joins when
a line comes on its standard input, and trains until somebody ends it. After SIGUSR1 it stops itself
(SIGSTOP) where all others wait for its part of the next collective.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from records import Records

WIDTH = 256

Step = Callable[[torch.Tensor], int]
"""A step on a batch [8, WIDTH]: replicas whose gradients are in it; 0: it did not commit."""

Join = Callable[[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]], Step]


def serve(join: Join) -> None:
    """Runs until it is killed. `join` becomes a replica of the job; what it is given as the third
    argument is to be called just before this replica's part of a collective is sent."""
    records = Records(Path(sys.argv[1]))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, WIDTH)
    )
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True

    def about_to_send() -> None:
        if asked:
            records.stop(time.monotonic())
            os.kill(os.getpid(), signal.SIGSTOP)

    signal.signal(signal.SIGUSR1, ask)
    # So slow that gradients do not become denormal numbers, which processors are slow with.
    inner = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    batch = torch.randn(8, WIDTH)
    print("imported", flush=True)
    if not sys.stdin.readline():
        return
    records.begin(time.monotonic())
    step = join(model, inner, about_to_send)
    while True:
        if replicas := step(batch):
            records.add(time.monotonic(), replicas)
