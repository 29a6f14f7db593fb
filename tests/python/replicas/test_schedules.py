"""Learning-rate schedules and clipping: what every replica does alike, whenever it came."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Coordinator
from replica_worker import Model, compute, held
from test_replica_checkpoints import settings_of
from test_replicas import PATIENCE_S, Group, join, one_thread
from torch.optim import lr_scheduler as schedules

import atoll
from atoll.errors import DeadlineExceeded, MismatchError, MisuseError
from atoll.replicas.schedule import from_json, to_json

STEPS = 8

Make = Callable[[torch.optim.Optimizer], Any]

MAKES: dict[str, Make] = {
    "cosine": lambda inner: schedules.CosineAnnealingLR(inner, 20),
    "milestones": lambda inner: schedules.MultiStepLR(inner, [2, 5], gamma=0.5),
    "function": lambda inner: schedules.LambdaLR(inner, lambda step: 1 / (1 + step)),
    "one cycle": lambda inner: schedules.OneCycleLR(inner, 0.1, total_steps=20),
    "one after another": lambda inner: schedules.SequentialLR(
        inner,
        [schedules.LinearLR(inner, 0.1, total_iters=3), schedules.ExponentialLR(inner, 0.9)],
        [3],
    ),
}


@pytest.fixture(autouse=True)
def single() -> Iterator[None]:
    with one_thread():
        yield


def run(
    session: Any,
    make: Make | None,
    end: int,
    *,
    after: Callable[[Any, int], None] = lambda optimizer, step: None,
) -> dict[int, tuple[str, float]]:
    """What is held after each step, and the learning rate of the next one."""
    model = Model()
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ddp = atoll.FaultTolerantDDP(session, model)
    scheduler = None if make is None else make(inner)
    optimizer = atoll.FaultTolerantOptimizer(ddp, inner, scheduler=scheduler)
    found = {}
    while ddp.step < end:
        optimizer.zero_grad()
        compute(ddp, "constant")
        assert optimizer.step()
        found[ddp.step] = (held(model, inner), inner.param_groups[0]["lr"])
        after(optimizer, ddp.step)
    return found


@pytest.mark.parametrize("name", MAKES)
def test_a_restarted_job_goes_on_with_its_schedule(tmp_path: Path, name: str) -> None:
    make = MAKES[name]
    with atoll.join({"metrics_port": -1}) as session:
        wanted = run(session, make, STEPS)
    found: dict[int, tuple[str, float]] = {}
    for end in (STEPS // 2, STEPS):
        with atoll.join(settings_of(tmp_path / "run")) as session:
            found |= run(session, make, end)
    assert found == wanted
    assert len({rate for _, rate in wanted.values()}) > 2


@pytest.mark.processes
def test_who_comes_later_has_the_schedule() -> None:
    """Two wait after their fourth step until a third one wants to come in."""
    told: dict[str, dict[int, tuple[str, float]]] = {}
    group = Group()

    def joiner(port: int, ready: threading.Event, peer: list[bytes]) -> None:
        with join(port, "c") as session:
            peer.append(session.peer_id)
            say = session._client.ready
            session._client.ready = lambda: (say(), ready.set())
            told["c"] = run(session, MAKES["one after another"], STEPS)

    def member(port: int, name: str) -> None:
        with join(port, name) as session:

            def halt(optimizer: Any, step: int) -> None:
                if name != "a" or step != 4:
                    return
                ready, peer = threading.Event(), list[bytes]()
                optimizer.publish()  # what the newcomer fetches first
                group.start(lambda: joiner(port, ready, peer))
                assert ready.wait(PATIENCE_S)
                with suppress(DeadlineExceeded):  # it comes in when the op under way is over
                    session._client.wait(lambda now: peer[0] in now.view.ids, 0.3)

            told[name] = run(session, MAKES["one after another"], STEPS, after=halt)

    with Coordinator(min_islands=2) as coordinator:
        for name in "ab":
            group.start(lambda name=name: member(coordinator.port, name))
        group.wait()
    assert told["a"] == told["b"]
    assert told["c"]
    assert told["c"].items() <= told["a"].items()


def test_the_total_is_clipped_after_the_exchange() -> None:
    """Gradients 3 and 5 of two replicas: the mean is 4, of which a norm of 1 is left."""
    moved: list[float] = []
    group = Group()

    def work(port: int, name: str) -> None:
        with join(port, name) as session:
            model = torch.nn.Linear(1, 1, bias=False)
            inner = torch.optim.SGD(model.parameters(), lr=1.0)
            ddp = atoll.FaultTolerantDDP(session, model)
            optimizer = atoll.FaultTolerantOptimizer(ddp, inner, max_norm=1.0)
            before = float(model.weight.detach())
            ddp(torch.tensor([[3.0 + 2.0 * ddp.slot]])).sum().backward()
            assert optimizer.step()
            moved.append(before - float(model.weight.detach()))

    with Coordinator(min_islands=2) as coordinator:
        for name in "ab":
            group.start(lambda name=name: work(coordinator.port, name))
        group.wait()
    assert moved == pytest.approx([1.0, 1.0], abs=1e-5)


def test_what_is_not_supported_says_so_in_one_line(tmp_path: Path) -> None:
    model = Model()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    with atoll.join({"metrics_port": -1}) as session:
        ddp = atoll.FaultTolerantDDP(session, model)
        for options, message in (
            ({"scheduler": schedules.ReduceLROnPlateau(inner)}, "every replica has its own"),
            ({"scheduler": MAKES["cosine"](other)}, "that of the wrapped optimizer"),
            ({"scheduler": 3}, "must be one of torch.optim.lr_scheduler"),
            ({"max_norm": 0.0}, "max_norm must be above 0"),
        ):
            with pytest.raises(MisuseError, match=message) as caught:
                atoll.FaultTolerantOptimizer(ddp, inner, **options)
            assert "\n" not in str(caught.value)
        optimizer = atoll.FaultTolerantOptimizer(ddp, inner)
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(model(torch.ones(2, 24)).sum()).backward()
        with pytest.raises(MisuseError, match="train in bf16"):
            scaler.step(optimizer)
    with atoll.join(settings_of(tmp_path / "run")) as session:
        run(session, MAKES["cosine"], 1)
    with (
        atoll.join(settings_of(tmp_path / "run")) as session,
        pytest.raises(MismatchError, match="none for a scheduler"),
    ):
        run(session, None, 2)


def test_a_state_comes_back_as_it_was() -> None:
    value = {
        "milestones": Counter({30: 2, 80: 1}),
        "best": float("inf"),
        "betas": (0.9, [1, None, True, "x"]),
        2: {"a": -0.0},
    }
    found = from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))
    assert found == value
    assert isinstance(found["milestones"], Counter)
    assert isinstance(found["betas"], tuple)
    with pytest.raises(TypeError, match="a function"):
        to_json({"f": lambda: None})
