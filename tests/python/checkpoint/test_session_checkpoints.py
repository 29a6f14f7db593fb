"""Checkpoints of a session: when, what of, what a restart makes of them, and what goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import atoll
from atoll.checkpoint import keeper as keepers
from atoll.checkpoint import write as writing
from atoll.checkpoint.keeper import Checkpoints
from atoll.checkpoint.places import open_place
from atoll.checkpoint.read import survey
from atoll.data.journal import audit, read

SAMPLES = 48


class Points:
    """(x, y) pairs of a line."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tensor([index / SAMPLES, 1.0])
        return x, 3.0 * x[:1] + 1.0


def train(
    settings: dict[str, object], rounds: int, seed: int = 0, **options: Any
) -> tuple[dict[str, Any], Any]:
    """Trains alone up to round `rounds`; returns the outer state and the session, closed."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Linear(5, 1))
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    with atoll.join({"job": "reef", "island": "alone", **settings}) as session:
        outer = atoll.DiLoCo(session, model, inner, sync_every=2, **options)
        for x, y in session.batches(Points(), batch_size=4, rounds=rounds):
            loss = (model(x) - y).square().mean()
            loss.backward()
            inner.step()
            inner.zero_grad()
            outer.step(loss)
        state = outer.state_dict()
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    assert torch.equal(flat, state["theta"])
    return state, session


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        torch.equal(one[name].view(torch.int32), other[name].view(torch.int32))
        for name in ("theta", "momentum")
    ) and (one["round"], one["ledger"]["pool"], one["ledger"]["epoch"]) == (
        other["round"],
        other["ledger"]["pool"],
        other["ledger"]["epoch"],
    )


def settings_of(url: Path, every: int = 2, **more: object) -> dict[str, object]:
    return {
        "checkpoint_url": str(url),
        "checkpoint_every": every,
        "checkpoint_keep": 100,
        "metrics_port": -1,
        **more,
    }


def rounds_at(url: Path) -> list[int]:
    return [entry.round for entry in survey(open_place(str(url)))]


def test_a_restart_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """The inner optimizer has no memory here, so every bit must be that of a run in one go."""
    wanted, _ = train({"metrics_port": -1}, 9)
    logs = [tmp_path / "logs-0", tmp_path / "logs-1"]
    for folder in logs:
        folder.mkdir()
    url = tmp_path / "run"
    train(settings_of(url, log_dir=logs[0]), 5)
    found, _ = train(settings_of(url, log_dir=logs[1]), 9, seed=99)
    assert same(found, wanted)
    assert rounds_at(url)[0] == 9
    # 12 batches a pass, two a round: nine rounds are a pass and a half.
    checked = audit(read(*logs), samples=SAMPLES, passes=1)
    assert checked.problems == ()
    assert (checked.rounds, checked.positions) == (9, {0: SAMPLES, 1: SAMPLES // 2})


def test_the_last_round_is_written_at_the_end(tmp_path: Path) -> None:
    state, _ = train(settings_of(tmp_path, every=4), 7)
    assert rounds_at(tmp_path)[0] == 7
    assert 4 in rounds_at(tmp_path)
    assert same(train(settings_of(tmp_path), 7)[0], state)


def _fails_after_a_round(settings: dict[str, object]) -> None:
    with atoll.join(settings) as session:
        model = torch.nn.Linear(2, 1)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        atoll.DiLoCo(session, model, inner, sync_every=1).step()
        raise RuntimeError("by chance")


def test_who_fails_writes_no_last_round(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="by chance"):
        _fails_after_a_round(settings_of(tmp_path))
    assert rounds_at(tmp_path) == []


def test_other_settings_are_refused(tmp_path: Path) -> None:
    train(settings_of(tmp_path), 2)
    with pytest.raises(atoll.errors.MismatchError, match=r"outer_lr = 0.5, the job has 0.7"):
        train(settings_of(tmp_path), 4, outer_lr=0.5)
    with pytest.raises(atoll.errors.ConfigError, match="checkpoints of job 'reef'"):
        train(settings_of(tmp_path, job="lagoon"), 4)
    with pytest.raises(atoll.errors.ConfigError, match="nosuch"):
        atoll.join({"checkpoint_url": "nosuch://bucket", "metrics_port": -1})


def test_a_place_that_cannot_be_read_begins_nothing_anew(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(atoll.errors.CheckpointError, match="cannot be listed: Not a directory"):
        train(settings_of(tmp_path / "run"), 2)


def test_a_damaged_one_is_told_and_the_one_before_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(settings_of(tmp_path, every=3), 7)
    newest = survey(open_place(str(tmp_path)))[0]
    file = tmp_path / newest.name / "momentum-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    found, session = train(settings_of(tmp_path, every=100, metrics_port=0), 6)
    assert found["round"] == 6
    (line,) = [r.getMessage() for r in caplog.records if "damaged" in r.getMessage()]
    assert newest.name in line
    assert "taking the one before" in line
    assert value(session, "atoll_checkpoints_damaged_total") == 1


def value(session: Any, name: str) -> float | None:
    found: float | None = session._metrics.registry.get_sample_value(name)
    return found


class Method:
    """As much of a method as checkpoints see; counts the snapshots that are still alive."""

    counts = "round"
    line = ""

    def __init__(self) -> None:
        self.round = 0
        self.tensor = torch.zeros(1000)

    def snapshot(self) -> writing.Snapshot:
        return writing.Snapshot(
            round=self.round,
            revision=self.round,
            values={},
            groups={"parameters": {"t": self.tensor.clone()}},
        )

    def restoring(self, values: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
        return {"parameters": {"t": self.tensor}}

    def restored(self, values: dict[str, Any]) -> None:
        pass


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writing waits for it."""
    event = threading.Event()
    write = writing.write

    def slow(*args: Any, **kwargs: Any) -> Any:
        assert event.wait(30)
        return write(*args, **kwargs)

    monkeypatch.setattr(keepers, "write", slow)
    yield event
    event.set()


def make(path: Path, told: list[tuple[str, str]], every: int = 1) -> tuple[Checkpoints, Any]:
    from prometheus_client import CollectorRegistry

    from atoll.checkpoint.metrics import CheckpointMetrics

    registry = CollectorRegistry()
    checkpoints = Checkpoints(
        open_place(str(path)),
        writing.Origin(job="reef", island="a", software="test"),
        every=every,
        keep=100,
        tell=lambda kind, message: told.append((kind, message)),
        metrics=CheckpointMetrics(registry),
    )
    return checkpoints, registry.get_sample_value


def test_who_is_still_writing_skips_and_counts(tmp_path: Path, gate: threading.Event) -> None:
    told: list[tuple[str, str]] = []
    checkpoints, count = make(tmp_path, told)
    method = Method()
    for method.round in (1, 2, 3):
        checkpoints.round_over(method, epoch=1)  # returns while the first is under way
    assert count("atoll_checkpoints_skipped_total") == 2
    gate.set()
    assert checkpoints.finish(method, epoch=1, timeout_s=30)
    assert rounds_at(tmp_path) == [3, 1]
    assert count("atoll_checkpoints_written_total") == 2
    assert [kind for kind, _ in told] == ["checkpoint", "checkpoint"]
    assert count("atoll_checkpoint_last_round") == 3
    assert count("atoll_checkpoint_seconds_count") == 2
    assert abs(count("atoll_checkpoint_last_success_timestamp_seconds") - time.time()) < 3600
    size = sum(f.stat().st_size for f in tmp_path.rglob("*.safetensors"))
    assert count("atoll_checkpoint_bytes_total") == size


def test_closing_does_not_wait_for_ever(tmp_path: Path, gate: threading.Event) -> None:
    told: list[tuple[str, str]] = []
    checkpoints, count = make(tmp_path, told)
    method = Method()
    method.round = 1
    checkpoints.round_over(method, epoch=1)
    assert not checkpoints.finish(method, epoch=1, timeout_s=0.01)
    assert count("atoll_checkpoints_failed_total") == 1
    assert "not written within 0.01 s" in told[-1][1]


def test_the_state_is_lent_unchanged_while_training_goes_on(
    tmp_path: Path, gate: threading.Event
) -> None:
    """Rounds go on while a checkpoint of round 1 is written slowly: it must be round 1's bits."""
    model = torch.nn.Linear(50, 1)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = settings_of(tmp_path / "run", every=1, checkpoint_close_s=30.0)
    with atoll.join({"job": "reef", **settings}) as session:
        outer = atoll.DiLoCo(session, model, inner, sync_every=1)
        states = {}
        for round_ in range(1, 7):
            with torch.no_grad():
                model.weight.add_(0.1)
            outer.step()
            states[round_] = outer.state_dict()
        gate.set()
    assert rounds_at(tmp_path / "run") == [6, 1]
    import safetensors.torch

    for entry in survey(open_place(str(tmp_path / "run"))):
        folder = tmp_path / "run" / entry.name
        for group, key in (("parameters", "theta"), ("momentum", "momentum")):
            loaded = safetensors.torch.load_file(folder / f"{group}-00000.safetensors")
            flat = torch.cat([loaded[name].reshape(-1) for name in ("weight", "bias")])
            assert torch.equal(flat, states[entry.round][key])


def test_an_error_of_a_driver_is_reported_and_the_next_one_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    checkpoints, count = make(tmp_path, told)
    method = Method()
    write = writing.write

    def fails(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(keepers, "write", write)
        raise ValueError("a driver's own")

    monkeypatch.setattr(keepers, "write", fails)
    method.round = 1
    checkpoints.round_over(method, epoch=1)
    method.round = 2
    assert checkpoints.finish(method, epoch=1, timeout_s=30)
    assert [kind for kind, _ in told] == ["checkpoint_failed", "checkpoint"]
    assert "round 1: no checkpoint" in told[0][1]
    assert "a driver's own; training goes on" in told[0][1]
    assert count("atoll_checkpoints_failed_total") == 1
