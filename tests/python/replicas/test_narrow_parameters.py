"""Parameters of 16 bits, and of several formats in one model: added up in fp32, rounded once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from harness import Coordinator
from replica_worker import DEVICE, MICRO_BATCHES, Model, compute, held
from test_replicas import Group, join, one_thread

import atoll

STEPS = 4

pytestmark = pytest.mark.processes


class Mixed(Model):
    """bf16, fp32 and fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[0].to(torch.bfloat16)
        self.layers[4].to(torch.float16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            kind = next((p.dtype for p in layer.parameters()), x.dtype)
            x = layer(x.to(kind))
        return x.float()


@pytest.fixture(autouse=True)
def single() -> Iterator[None]:
    with one_thread():
        yield


def train(session: Any, batch: str) -> tuple[dict[int, str], Mixed]:
    model = Mixed().to(DEVICE)
    options: dict[str, dict[str, Any]] = {
        "constant": {},
        "scaled": {"replicas": 2},
        "fixed": {"micro_batches": MICRO_BATCHES},
    }
    ddp = atoll.FaultTolerantDDP(session, model, batch=batch, bucket_mib=0.01, **options[batch])
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-4)  # 1e-8 is 0 in fp16
    optimizer = atoll.FaultTolerantOptimizer(ddp, inner)
    found = {}
    while ddp.step < STEPS:
        optimizer.zero_grad()
        compute(ddp, batch)
        assert optimizer.step()
        found[ddp.step] = held(model, inner)
    return found, model


@pytest.mark.parametrize("batch", ["constant", "scaled", "fixed"])
def test_replicas_hold_the_same_bits(batch: str) -> None:
    told: dict[str, dict[int, str]] = {}
    group = Group()

    def work(port: int, name: str) -> None:
        with join(port, name) as session:
            told[name], model = train(session, batch)
            kinds = [parameter.dtype for parameter in model.parameters()]
            wanted = [torch.bfloat16, torch.float32, torch.float16]
            assert kinds == [kind for kind in wanted for _ in range(2)]

    with Coordinator(min_islands=2) as coordinator:
        for name in "ab":
            group.start(lambda name=name: work(coordinator.port, name))
        group.wait()
    assert sorted(told["a"]) == list(range(1, STEPS + 1))
    assert told["a"] == told["b"]
    assert len(set(told["a"].values())) == STEPS
    if batch == "fixed":
        with atoll.join({"metrics_port": -1}) as session:
            assert train(session, batch)[0] == told["a"]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_mean_is_rounded_once(kind: torch.dtype) -> None:
    """The sum of 1 and 1 + 3/128 has no place in bf16, and so on: half of it has."""
    step = float(torch.finfo(kind).eps)
    given = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0 + 3 * step, 2.0, 3.0])]
    mean = (given[0].double() + given[1].double()) / 2
    grads: list[torch.Tensor] = []
    group = Group()

    def work(port: int, name: str) -> None:
        with join(port, name) as session:
            model = torch.nn.Linear(3, 1, bias=False, dtype=kind)
            ddp = atoll.FaultTolerantDDP(session, model, batch="scaled", replicas=2)
            inner = torch.optim.SGD(model.parameters(), lr=0.0)
            optimizer = atoll.FaultTolerantOptimizer(ddp, inner)
            ddp(given[ddp.slot].to(kind)).sum().backward()
            assert optimizer.step()
            assert model.weight.grad is not None
            grads.append(model.weight.grad.reshape(-1).clone())
            assert optimizer.skipped == 0

    with Coordinator(min_islands=2) as coordinator:
        for name in "ab":
            group.start(lambda name=name: work(coordinator.port, name))
        group.wait()
    assert all(grad.dtype == kind and torch.equal(grad, mean.to(kind)) for grad in grads)


def test_a_total_that_overflows_is_left_out() -> None:
    """Finite in fp32, not in fp16."""
    left_out: list[int] = []
    group = Group()

    def work(port: int, name: str) -> None:
        with join(port, name) as session:
            model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float16)
            ddp = atoll.FaultTolerantDDP(session, model, batch="scaled", replicas=1)
            inner = torch.optim.SGD(model.parameters(), lr=1.0)
            optimizer = atoll.FaultTolerantOptimizer(ddp, inner)
            before = model.weight.detach().clone()
            ddp(torch.full((1,), 40_000.0, dtype=torch.float16)).sum().backward()
            assert optimizer.step()
            assert torch.equal(model.weight, before)
            left_out.append(optimizer.skipped)

    with Coordinator(min_islands=2) as coordinator:
        for name in "ab":
            group.start(lambda name=name: work(coordinator.port, name))
        group.wait()
    assert left_out == [1, 1]
