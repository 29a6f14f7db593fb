"""Checkpoints of replicas: whatever has died, a job that is started anew continues to the bit."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from harness import Coordinator
from replica_worker import AFTER, compute, held, loss_of, replica, train
from test_replicas import Group, join, one_thread
from test_replicas_processes import PATIENCE_S, slots, start, steps, wait_for

import atoll
from atoll.checkpoint import keeper as keepers
from atoll.checkpoint import write as writing
from atoll.checkpoint.places import open_place
from atoll.checkpoint.read import survey
from atoll.errors import ConfigError, MismatchError
from atoll_launcher.main import main as command

EVERY = 4


def settings_of(url: Path, **more: object) -> dict[str, object]:
    return {
        "job": "reef",
        "metrics_port": -1,
        "checkpoint_url": str(url),
        "checkpoint_every": EVERY,
        "checkpoint_keep": 100,
        **more,
    }


def steps_at(url: Path) -> list[int]:
    return [entry.round for entry in survey(open_place(str(url)))]


def alone(settings: dict[str, object], batch: str, end: int) -> dict[int, str]:
    """What a single replica holds after each of its steps."""
    found = {}
    with atoll.join(settings) as session:
        model, ddp, optimizer = replica(session, batch)
        while ddp.step < end:
            optimizer.zero_grad()
            compute(ddp, batch)
            optimizer.step()
            found[ddp.step] = held(model, optimizer.inner)
    return found


@pytest.fixture(autouse=True)
def single() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize("batch", ["constant", "scaled", "fixed"])
def test_a_restarted_job_continues_to_the_bit(tmp_path: Path, batch: str) -> None:
    url = tmp_path / "run"
    wanted = alone({"metrics_port": -1}, batch, 9)
    first = alone(settings_of(url), batch, 6)
    assert steps_at(url) == [6, 4]  # as often as is due, and once more at the end
    second = alone(settings_of(url), batch, 9)
    assert sorted(second) == [7, 8, 9]
    assert first | second == wanted
    assert steps_at(url) == [9, 8, 6, 4]


class Normed(torch.nn.Module):
    """Batch norm's buffers, one that torch does not save, one parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.BatchNorm1d(8))
        self.head = torch.nn.Linear(8, 1)
        self.head.bias.requires_grad_(False)
        self.inner.register_buffer("made", torch.ones(8), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x) * self.inner.made)


def normed(session: Any, **options: Any) -> tuple[Normed, Any, Any]:
    torch.manual_seed(3)
    model = Normed()
    ddp = atoll.FaultTolerantDDP(session, model, **options)
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, ddp, atoll.FaultTolerantOptimizer(ddp, inner)


def test_what_is_in_one_and_what_is_made_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = tmp_path / "run"
    with atoll.join(settings_of(url)) as session:
        model, ddp, optimizer = normed(session)
        for step in range(3):
            loss_of(ddp, step, 0).backward()
            assert optimizer.step()
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (entry,) = survey(open_place(str(url)))
    assert entry.manifest is not None
    groups = {file.group: sorted(file.tensors) for file in entry.manifest.files}
    assert groups == {
        "parameters": sorted(dict(model.named_parameters())),
        "buffers": [f"inner.1.{n}" for n in ("num_batches_tracked", "running_mean", "running_var")],
        "optimizer": [f"{index}.momentum_buffer" for index in range(5)],
    }
    assert command(["checkpoints", "verify", str(url)]) == 0
    assert command(["export", str(url), "--to", str(tmp_path / "to")]) == 0
    capsys.readouterr()
    exported = safetensors.torch.load_file(tmp_path / "to" / "model.safetensors")
    assert exported.keys() == saved.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in saved.items())

    with atoll.join(settings_of(url)) as session:
        model, ddp, optimizer = normed(session)
        assert ddp.step == 3
        found = model.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
        assert model.inner.made.equal(torch.ones(8))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    url = tmp_path / "run"
    alone(settings_of(url), "constant", 2)
    with atoll.join(settings_of(url)) as session, pytest.raises(MismatchError, match="batch ="):
        replica(session, "scaled")
    with atoll.join(settings_of(url)) as session, pytest.raises(MismatchError, match="is torch"):
        normed(session)
    with (
        atoll.join(settings_of(url, job="atoll")) as session,
        pytest.raises(ConfigError, match="checkpoints of job 'reef'"),
    ):
        replica(session, "constant")
    with atoll.join(settings_of(url)) as session:  # other buckets are another exchange, no more
        assert replica(session, "constant", bucket_mib=1.0)[1].step == 2
    assert steps_at(url) == [2]


def test_the_copy_is_of_its_step_while_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Writing waits until all steps are over; who goes without says so once."""
    go, write = threading.Event(), writing.write

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert go.wait(30)
        return write(*args, **kwargs)

    monkeypatch.setattr(keepers, "write", slow)
    url = tmp_path / "run"
    with atoll.join(settings_of(url)) as session, caplog.at_level(logging.WARNING):
        model, ddp, optimizer = replica(session, "constant")
        states = {}
        while ddp.step < 3 * EVERY:
            optimizer.zero_grad()
            compute(ddp, "constant")
            optimizer.step()
            states[ddp.step] = [p.detach().clone() for p in model.parameters()]
        go.set()
    told = [r.getMessage() for r in caplog.records if "under way" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("step 8: no checkpoint")
    assert steps_at(url) == [3 * EVERY, EVERY]
    for entry in survey(open_place(str(url))):
        found = safetensors.torch.load_file(url / entry.name / "parameters-00000.safetensors")
        names = [name for name, _ in model.named_parameters()]
        assert all(
            torch.equal(found[name], wanted)
            for name, wanted in zip(names, states[entry.round], strict=True)
        )


@pytest.mark.processes
def test_the_next_oldest_writes_when_the_writer_leaves(tmp_path: Path) -> None:
    url, group = tmp_path / "run", Group()
    writers: dict[str, str] = {}
    gone = threading.Event()

    def member(port: int, name: str) -> None:
        options = {"coordinator": f"127.0.0.1:{port}", "island": name}
        with atoll.join(settings_of(url, **options)) as session:
            _, ddp, optimizer = replica(session, "fixed")
            first = session.rank == 0
            while ddp.step < (EVERY + 1 if first else 4 * EVERY):
                optimizer.zero_grad()
                compute(ddp, "fixed")
                optimizer.step()
                if ddp.step == EVERY + 1 and not first:
                    assert gone.wait(PATIENCE_S)
            writers["first" if first else "second"] = name
            if first:
                gone.set()

    with Coordinator(min_islands=2) as coordinator:
        for name in "ab":
            group.start(lambda name=name: member(coordinator.port, name))
        group.wait()
    by_step = {e.round: e.manifest.island for e in survey(open_place(str(url))) if e.manifest}
    assert by_step[EVERY] == writers["first"]
    assert by_step[4 * EVERY] == writers["second"]


@pytest.mark.processes
@pytest.mark.timeout(150)
def test_all_are_killed_at_once_and_the_job_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one replica more."""
    url, group = tmp_path / "run", Group()
    monkeypatch.setenv("ATOLL_CHECKPOINT_URL", str(url))
    monkeypatch.setenv("ATOLL_CHECKPOINT_EVERY", str(EVERY))
    with Coordinator(min_islands=2) as coordinator:
        running = [start(tmp_path, coordinator.port, name, "fixed", -1) for name in "ab"]
        try:
            wait_for(lambda: len(slots(tmp_path / "a.steps")) >= 3 * EVERY and steps_at(url))
        finally:
            for process in running:
                os.kill(process.pid, signal.SIGKILL)
            codes = [process.wait(PATIENCE_S) for process in running]
    assert codes == [-signal.SIGKILL] * 2
    newest = steps_at(url)[0]

    def again(port: int, name: str) -> None:
        with join(port, name) as session, (tmp_path / f"{name}.steps").open("w") as out:
            train(session, "fixed", -1, out, None)

    with Coordinator(min_islands=3) as coordinator:
        for name in "cde":
            group.start(lambda name=name: again(coordinator.port, name))
        group.wait()
    monkeypatch.delenv("ATOLL_CHECKPOINT_URL")
    told = steps(tmp_path, "c")
    assert told == steps(tmp_path, "d") == steps(tmp_path, "e")
    assert [line["step"] for line in told] == list(range(newest + 1, newest + 1 + AFTER))
    assert {line["slots"] for line in told} == {3}
    wanted = alone({"metrics_port": -1}, "fixed", newest + AFTER)
    assert {line["step"]: line["held"] for line in told}.items() <= wanted.items()
    assert steps_at(url)[0] == newest + AFTER
