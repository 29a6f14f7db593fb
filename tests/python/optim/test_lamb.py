"""LAMB against NumPy, and sharded against whole."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import atoll
from atoll.errors import MisuseError
from atoll.optim.lamb import LAMB

SHAPES = [(7, 5), (6,), (4, 2)]


def tensors(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.double) for shape in SHAPES]


def numpy_lamb(weights: list[np.ndarray], grads: list[list[np.ndarray]]) -> list[np.ndarray]:
    """arXiv 1904.00962, algorithm 2, with lr 0.1, betas 0.8 and 0.9, eps 1e-3, lambda 0.05."""
    m = [np.zeros_like(w) for w in weights]
    v = [np.zeros_like(w) for w in weights]
    for t, step in enumerate(grads, start=1):
        for i, g in enumerate(step):
            m[i] = 0.8 * m[i] + 0.2 * g
            v[i] = 0.9 * v[i] + 0.1 * g**2
            r = m[i] / (1 - 0.8**t) / (np.sqrt(v[i] / (1 - 0.9**t)) + 1e-3)
            r = r + 0.05 * weights[i]
            ratio = np.linalg.norm(weights[i]) / np.linalg.norm(r)
            weights[i] = weights[i] - 0.1 * ratio * r
    return weights


def lamb(parameters: list[torch.nn.Parameter], **options: object) -> LAMB:
    return LAMB(
        parameters,
        lr=0.1,
        betas=(0.8, 0.9),
        eps=1e-3,
        weight_decay=0.05,
        **options,  # type: ignore[arg-type]
    )


def test_it_is_found_under_the_package() -> None:
    assert atoll.LAMB is LAMB


def test_against_numpy() -> None:
    parameters = [torch.nn.Parameter(w) for w in tensors(0)]
    wanted = numpy_lamb(
        [w.numpy() for w in tensors(0)], [[g.numpy() for g in tensors(s)] for s in (1, 2, 3)]
    )
    optimizer = lamb(parameters)
    for seed in (1, 2, 3):
        for parameter, gradient in zip(parameters, tensors(seed), strict=True):
            parameter.grad = gradient
        optimizer.step()
    for parameter, one in zip(parameters, wanted, strict=True):
        # Norms are taken in fp32.
        np.testing.assert_allclose(parameter.detach().numpy(), one, rtol=1e-5)


def test_shards_step_as_the_whole_layer_does() -> None:
    whole = [torch.nn.Parameter(w) for w in tensors(0)]
    optimizer = lamb(whole)
    shards = 2
    barrier = threading.Barrier(shards, timeout=30)
    squares: list[torch.Tensor] = [torch.empty(0)] * shards
    for seed in (1, 2):
        for parameter, gradient in zip(whole, tensors(seed), strict=True):
            parameter.grad = gradient
        optimizer.step()

    def shard(rank: int) -> list[torch.Tensor]:
        def reduce(own: torch.Tensor) -> torch.Tensor:
            squares[rank] = own
            barrier.wait()
            total = squares[0] + squares[1]
            barrier.wait()
            return total

        own = [torch.nn.Parameter(w.chunk(shards)[rank].clone()) for w in tensors(0)]
        optimizer = lamb(own, reduce=reduce)
        for seed in (1, 2):
            for parameter, gradient in zip(own, tensors(seed), strict=True):
                parameter.grad = gradient.chunk(shards)[rank]
            optimizer.step()
        return [parameter.detach() for parameter in own]

    with ThreadPoolExecutor(shards) as pool:
        parts = list(pool.map(shard, range(shards)))
    for layer, parameter in enumerate(whole):
        joined = torch.cat([part[layer] for part in parts])
        torch.testing.assert_close(joined, parameter.detach(), rtol=1e-6, atol=1e-8)


def test_the_step_is_as_long_as_the_layer_is_large() -> None:
    for size in (1.0, 100.0):
        parameter = torch.nn.Parameter(torch.full((4,), size))
        parameter.grad = torch.tensor([1.0, -2.0, 3.0, 1.0])
        before = parameter.detach().clone()
        LAMB([parameter], lr=0.01, weight_decay=0.0).step()
        moved = float((parameter.detach() - before).norm() / before.norm())
        assert abs(moved - 0.01) < 1e-5


def test_a_layer_of_zeros_moves_with_ratio_one() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([1.0, 2.0, -4.0])
    LAMB([parameter], lr=0.5, eps=0.0).step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.5, -0.5, 0.5]))


def test_it_takes_groups_closures_and_missing_gradients() -> None:
    a, b, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = LAMB([{"params": [a, idle]}, {"params": [b], "lr": 0.0}], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (a * b).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 2.0
    moved, held, untouched = (float(one.detach()[0]) for one in (a, b, idle))
    assert moved < 1.0
    assert (held, untouched) == (1.0, 1.0)
    restored = LAMB([{"params": [a, idle]}, {"params": [b]}])
    restored.load_state_dict(optimizer.state_dict())
    assert restored.state[a]["step"] == 1


def test_settings_that_make_no_sense_are_refused() -> None:
    parameter = torch.nn.Parameter(torch.ones(1))
    for options, message in (
        ({"lr": -1.0}, "lr must be at least 0, not -1"),
        ({"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\)"),
        ({"eps": -1e-8}, "eps must be at least 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
    ):
        with pytest.raises(MisuseError, match=message):
            LAMB([parameter], **options)  # type: ignore[arg-type]
