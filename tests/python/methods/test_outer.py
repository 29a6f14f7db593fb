"""The outer step: torch's, the core's and an independent NumPy writing of the paper's equations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import atoll
from atoll import _core
from atoll.methods.outer import nesterov_step, outer_gradient

ALONE: dict[str, object] = {"metrics_port": -1}


def numpy_diloco(
    theta: np.ndarray, momentum: np.ndarray, deltas: list[np.ndarray], eta: float, mu: float
) -> tuple[np.ndarray, np.ndarray]:
    """arXiv 2311.08105: Delta = mean of the workers', then Nesterov."""
    delta = np.mean(deltas, axis=0)
    momentum = mu * momentum + delta
    return theta - eta * (delta + mu * momentum), momentum


@pytest.fixture
def vectors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    names = ("theta", "momentum", "local")
    return {name: torch.randn(1003, generator=generator) for name in names}


def test_against_numpy(vectors: dict[str, torch.Tensor]) -> None:
    theta, momentum, local = vectors["theta"], vectors["momentum"], vectors["local"]
    found = nesterov_step(theta, momentum, outer_gradient(theta, local), lr=0.7, mu=0.9)
    deltas = [(theta - local).double().numpy()]
    wanted = numpy_diloco(theta.double().numpy(), momentum.double().numpy(), deltas, 0.7, 0.9)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)


def test_against_torch_sgd(vectors: dict[str, torch.Tensor]) -> None:
    parameter = torch.nn.Parameter(vectors["theta"].clone())
    sgd = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    theta, momentum = vectors["theta"], torch.zeros(1003)
    for _ in range(3):
        parameter.grad = vectors["local"].clone()
        sgd.step()
        theta, momentum = nesterov_step(theta, momentum, vectors["local"], lr=0.7, mu=0.9)
    torch.testing.assert_close(parameter.detach(), theta)


def test_the_kernel_is_the_function(vectors: dict[str, torch.Tensor]) -> None:
    theta, momentum, total = vectors["theta"], vectors["momentum"], vectors["local"]
    theta_out, momentum_out = torch.empty(1003), torch.empty(1003)
    _core.nesterov_step(
        theta_out.data_ptr(),
        momentum_out.data_ptr(),
        theta.data_ptr(),
        momentum.data_ptr(),
        total.data_ptr(),
        1003,
        0.25,
        0.7,
        0.9,
    )
    wanted = nesterov_step(theta, momentum, total * 0.25, lr=0.7, mu=0.9)
    torch.testing.assert_close(theta_out, wanted[0])
    torch.testing.assert_close(momentum_out, wanted[1])


class Points:
    """(x, y) pairs of a line."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tensor([index / 40.0, 1.0])
        return x, 3.0 * x[:1] + 1.0


def test_a_session_of_one_is_the_paper_with_one_worker(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1, bias=False)
    theta = model.weight.detach().double().numpy().copy()
    momentum = np.zeros_like(theta)
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    used = 0
    with atoll.join({**ALONE, "log_dir": tmp_path}) as session:
        outer = atoll.DiLoCo(session, model, inner, sync_every=3)
        for x, y in session.batches(Points(), batch_size=4, epochs=2):
            used += len(x)
            loss = (model(x) - y).square().mean()
            loss.backward()
            inner.step()
            local = model.weight.detach().double().numpy().copy()
            inner.zero_grad()
            outer.step(loss)
            if outer.just_synced:
                theta, momentum = numpy_diloco(theta, momentum, [theta - local], 0.7, 0.9)
                found = model.weight.detach().double().numpy()
                np.testing.assert_allclose(found, theta, rtol=1e-4, atol=1e-5)
        # 40 samples are 10 batches: rounds of 3, 3, 3 and 1, twice.
        assert (used, outer.round) == (80, 8)
    from atoll.data.journal import audit, read

    found_audit = audit(read(tmp_path), samples=40, passes=2)
    assert found_audit.problems == ()
    assert found_audit.rounds == 8


def test_what_diloco_refuses() -> None:
    with atoll.join(ALONE) as session:
        half = torch.nn.Linear(2, 1).half()
        sgd = torch.optim.SGD(half.parameters(), lr=0.1)
        with pytest.raises(atoll.errors.TensorError, match=r"weight is float16.*model\.float\(\)"):
            atoll.DiLoCo(session, half, sgd)
        with pytest.raises(atoll.errors.MisuseError, match="sync_every must be at least 1, not 0"):
            atoll.DiLoCo(session, half.float(), sgd, sync_every=0)
        with pytest.raises(atoll.errors.MisuseError, match="make the method first"):
            session.batches(Points(), batch_size=1)
        with pytest.raises(atoll.errors.MisuseError, match="did you mean 'round_s'"):
            session.report(rounds=3)


def test_what_collectives_refuse() -> None:
    with atoll.join(ALONE) as session:
        with pytest.raises(atoll.errors.TensorError, match=r"bool; reductions take float32"):
            session.all_reduce(torch.ones(4, dtype=torch.bool))
        with pytest.raises(atoll.errors.TensorError, match=r"not contiguous; pass source\.contig"):
            session.all_reduce(torch.zeros(4, 4).t())
        with pytest.raises(atoll.errors.TensorError, match="a list, not a torch tensor"):
            session.all_reduce([1.0])  # type: ignore[arg-type]
        with pytest.raises(atoll.errors.MisuseError, match=r"channel -1 is not in \[0, 4096\)"):
            session.all_reduce(torch.zeros(4), channel=-1)
        with pytest.raises(atoll.errors.TensorError, match="4 elements, target 5"):
            session.all_reduce(torch.zeros(4), torch.zeros(5))
    with pytest.raises(atoll.errors.SessionClosed):
        session.all_reduce(torch.zeros(4))


def test_collectives_alone() -> None:
    with atoll.join(ALONE) as session:
        assert (session.rank, session.size) == (0, 1)
        handle = session.all_reduce(torch.arange(5.0))
        handle.wait(10)
        assert handle.target.tolist() == [0, 1, 2, 3, 4]
        session.barrier()
