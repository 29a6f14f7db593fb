"""What real islands compute together, beside the papers' algorithms written in NumPy for all of
them at once, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from churn import SCALE, Island, Job, Model

import atoll
from atoll.methods import fragments, gossip

pytestmark = pytest.mark.processes

ISLANDS = 3
STEPS = 5
ROUNDS = 6

Vector = Any
Named = dict[str, Vector]


def flat(named: Named) -> Vector:
    return np.concatenate([np.asarray(named[name]).ravel() for name in sorted(named)])


def begin() -> Named:
    return {n: p.detach().double().numpy().copy() for n, p in Model().named_parameters()}


def train(kind: str, **options: Any) -> list[Island]:
    """The islands after their last round, oldest first."""

    def make(session: Any, model: Any, inner: Any) -> Any:
        return getattr(atoll, kind)(session, model, inner, sync_every=STEPS, **options)

    with Job(make, rounds=ROUNDS, founders=ISLANDS) as job:
        job.wait()
        first = job.islands[0]
        assert first.method is not None
        assert first.session is not None
        ids = first.session.members_of(1)
        by_peer = {one.session.peer_id: one for one in job.islands if one.session is not None}
        return [by_peer[peer] for peer in ids]


def outer_of(island: Island) -> Vector:
    assert island.method is not None
    return flat({n: t.numpy() for n, t in island.method.named_outer_parameters().items()})


def local_of(island: Island) -> Vector:
    assert island.model is not None
    return flat({n: p.detach().numpy() for n, p in island.model.named_parameters()})


def close(found: Vector, wanted: Vector) -> None:
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def inner_steps(theta: Vector, island: Island, round_: int) -> Vector:
    for total in island.sums[round_ * STEPS : (round_ + 1) * STEPS]:
        theta = theta * (1 - total / SCALE)
    return theta


class Nesterov:
    def __init__(self, eta: float, mu: float) -> None:
        self.eta, self.mu, self.b = eta, mu, 0.0

    def step(self, theta: Vector, delta: Vector) -> Vector:
        self.b = self.mu * self.b + delta
        return theta - self.eta * (delta + self.mu * self.b)


def test_diloco() -> None:
    islands = train("DiLoCo", outer_lr=0.6, outer_momentum=0.8)
    theta, outer = flat(begin()), Nesterov(0.6, 0.8)
    for round_ in range(ROUNDS):
        deltas = [theta - inner_steps(theta, one, round_) for one in islands]
        theta = outer.step(theta, np.mean(deltas, axis=0))
    for one in islands:
        close(outer_of(one), theta)
        close(local_of(one), theta)


def test_local_sgd() -> None:
    islands = train("LocalSGD")
    theta = flat(begin())
    for round_ in range(ROUNDS):
        theta = np.mean([inner_steps(theta, one, round_) for one in islands], axis=0)
    for one in islands:
        close(outer_of(one), theta)


def test_delayed() -> None:
    islands = train("DiLoCo", overlap="delayed", outer_lr=0.6, outer_momentum=0.8)
    theta, outer = flat(begin()), Nesterov(0.6, 0.8)
    before: Vector | None = None
    for round_ in range(ROUNDS):
        mean = np.mean([theta - inner_steps(theta, one, round_) for one in islands], axis=0)
        if before is not None:
            theta = outer.step(theta, before)
        before = mean
    theta = outer.step(theta, before)  # what was under way at the end
    for one in islands:
        close(outer_of(one), theta)
        close(local_of(one), theta)


def test_eager() -> None:
    """Each worker: 1/M (its own Delta of now, the others' of the round before)."""
    islands = train("DiLoCo", overlap="eager", outer_lr=0.6, outer_momentum=0.8)
    thetas = [flat(begin()) for _ in islands]
    outers = [Nesterov(0.6, 0.8) for _ in islands]
    before: list[Vector] = []
    for round_ in range(ROUNDS):
        deltas = [
            theta - inner_steps(theta, one, round_)
            for theta, one in zip(thetas, islands, strict=True)
        ]
        for m in range(ISLANDS):
            parts = list(before) if before else list(deltas)
            parts[m] = deltas[m]
            thetas[m] = outers[m].step(thetas[m], np.mean(parts, axis=0))
        before = deltas
    for one, theta in zip(islands, thetas, strict=True):
        close(outer_of(one), theta)
    assert np.abs(thetas[0] - thetas[1]).max() > 1e-4  # they do differ


@pytest.mark.parametrize(("overlap", "mixing"), [(0, 0.0), (1, 0.5), (3, 0.25)])
def test_streaming(overlap: int, mixing: float) -> None:
    """Algorithm 2, step by step."""
    islands = train(
        "StreamingDiLoCo",
        fragments=3,
        overlap=overlap,
        mixing=mixing,
        outer_lr=0.4,
        outer_momentum=0.9,
        codec=None,
    )
    theta = begin()
    names = [name for name, _ in Model().named_parameters()]
    groups = fragments.fragments(names, 3)
    offsets = fragments.offsets(len(groups), STEPS)
    local = [{name: value.copy() for name, value in theta.items()} for _ in islands]
    outers = {name: Nesterov(0.4, 0.9) for name in names}
    under_way: dict[int, Named] = {}

    def start(p: int) -> None:
        under_way[p] = {
            name: np.mean([theta[name] - one[name] for one in local], axis=0) for name in groups[p]
        }

    def apply(p: int) -> None:
        for name, mean in under_way.pop(p).items():
            theta[name] = outers[name].step(theta[name], mean)
            for one in local:
                one[name] = mixing * one[name] + (1 - mixing) * theta[name]

    for step in range(1, ROUNDS * STEPS + 1):
        for one, island in zip(local, islands, strict=True):
            for name in names:
                one[name] = one[name] * (1 - island.sums[step - 1] / SCALE)
        starts, applies = fragments.due(step, offsets, period=STEPS, overlap=overlap)
        later = [p for p in applies if p in starts]
        for p in applies:
            if p not in later:
                apply(p)
        for p in starts:
            start(p)
        for p in later:
            apply(p)
    for p in sorted(under_way):
        apply(p)
    for island, one in zip(islands, local, strict=True):
        close(outer_of(island), flat(theta))
        close(local_of(island), flat(one))


def test_sparse_with_everything_kept_is_a_mean_in_two_bits() -> None:
    """The residuals of all and the shared parameters add up: nothing is lost but time."""
    islands = train("SparseLoCo", k=600, residual_decay=1.0)
    theta = flat(begin())
    names = [name for name, _ in Model().named_parameters()]
    sizes = {name: value.size for name, value in begin().items()}
    total = np.zeros_like(theta)
    for one in islands:
        residual: Vector = one.method.residual.numpy()  # type: ignore[union-attr]
        ends = np.cumsum([sizes[name] for name in names])[:-1]
        total += flat(dict(zip(names, np.split(residual, ends), strict=True)))
    # theta_0 - theta_T = mean of what was sent = mean of (all Delta - residual).
    shared = outer_of(islands[0])
    moved = theta - shared
    deltas = replayed(islands, theta)
    close(moved, deltas - total / ISLANDS)
    assert np.abs(moved).max() > 1e-3
    for one in islands:
        assert np.array_equal(outer_of(one), shared)


def replayed(islands: list[Island], theta: Vector) -> Vector:
    """The sum of the means of all Delta, each round from the parameters that were shared then."""
    total = np.zeros_like(theta)
    for round_, shared in enumerate([theta, *SHARED[:-1]]):
        total += np.mean([shared - inner_steps(shared, one, round_) for one in islands], axis=0)
    return total


SHARED: list[Vector] = []


@pytest.fixture(autouse=True)
def _shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes the shared parameters after every round of the first island."""
    SHARED.clear()
    real: Callable[..., None] = atoll.SparseLoCo._into_model

    def noting(self: Any, *rest: Any) -> None:
        real(self, *rest)
        if self._session.island == "a":
            SHARED.append(flat({n: t.numpy() for n, t in self.named_outer_parameters().items()}))

    monkeypatch.setattr(atoll.SparseLoCo, "_into_model", noting)


def test_noloco() -> None:
    islands = train("NoLoCo", alpha=0.5, beta=0.7, gamma=0.6, seed=3)
    phis = [flat(begin()) for _ in islands]
    deltas = [np.zeros_like(phis[0]) for _ in islands]
    epoch = 1
    for round_ in range(ROUNDS):
        moved = [
            inner_steps(phi, one, round_) - phi for phi, one in zip(phis, islands, strict=True)
        ]
        before = list(phis)
        for group in gossip.groups(ISLANDS, seed=3, epoch=epoch, round_=round_):
            dbar = np.mean([moved[rank] for rank in group], axis=0)
            pbar = np.mean([before[rank] for rank in group], axis=0)
            for rank in group:
                deltas[rank] = 0.5 * deltas[rank] + 0.7 * dbar + 0.6 * (pbar - before[rank])
                phis[rank] = before[rank] + deltas[rank]
    for one, phi in zip(islands, phis, strict=True):
        close(outer_of(one), phi)
        assert one.method.unpaired == 0  # type: ignore[union-attr]


def test_error_feedback_keeps_what_the_codec_loses() -> None:
    islands = train("DiLoCo", codec="int8", error_feedback=True)
    shared = outer_of(islands[0])
    for one in islands:
        assert np.array_equal(outer_of(one), shared)
        assert one.method is not None
        (residual,) = one.method._residuals  # type: ignore[attr-defined]
        assert 0 < float(residual.e.abs().max()) < 0.1


@pytest.mark.parametrize(("codec", "lost"), [("fp4", 0.0), ("int8", 1e-5), ("two_bit", 0.1)])
def test_a_residual_is_what_the_message_lacks(codec: str, lost: float) -> None:
    """lost: of the largest number, when the collective encodes the message once more."""
    from atoll.methods.residual import Residual

    generator = torch.Generator().manual_seed(2)
    residual = Residual(1000, codec)
    total = sent = torch.zeros(1000)
    for _ in range(5):
        delta = torch.randn(1000, generator=generator)
        total = total + delta
        message = residual.fed(delta, 8.0)
        again = residual.fed(delta, 8.0)  # an exchange that failed: nothing was said yet
        assert torch.equal(message, again)
        residual.delivered()
        sent = sent + message
        torch.testing.assert_close(sent + residual.e, total)
        assert float(residual.e.abs().max()) > 0.001
        off = (residual._through(message, 8.0) - message).abs().max() / message.abs().max()
        assert float(off) <= lost
