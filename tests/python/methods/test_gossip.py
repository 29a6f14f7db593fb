"""NoLoCo: pairs, the update against NumPy, and the exact bound by algebra and by simulation."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import MisuseError
from atoll.methods.gossip import check_stable, gamma_bound, groups, noloco_step, partners


@given(st.integers(1, 65), st.integers(0, 2**63), st.integers(0, 9), st.integers(0, 10_000))
def test_everybody_meets_somebody_in_pairs_and_at_most_one_three(
    members: int, seed: int, epoch: int, round_: int
) -> None:
    found = groups(members, seed=seed, epoch=epoch, round_=round_)
    assert sorted(rank for group in found for rank in group) == list(range(members))
    sizes = Counter(map(len, found))
    if members == 1:
        assert sizes == {1: 1}
    else:
        assert sizes[3] == members % 2
        assert sizes[2] == members // 2 - members % 2
    for group in found:
        for rank in group:
            others = partners(rank, members, seed=seed, epoch=epoch, round_=round_)
            assert sorted((rank, *others)) == list(group)


def test_pairs_change_with_seed_epoch_and_round_and_meet_all_alike() -> None:
    met = Counter(partners(0, 8, seed=3, epoch=1, round_=round_)[0] for round_ in range(2_100))
    assert set(met) == set(range(1, 8))
    # Binomial(2100, 1/7): mean 300, deviation 16.
    assert all(abs(times - 300) < 5 * 16 for times in met.values())
    base = [groups(16, seed=1, epoch=1, round_=r) for r in range(4)]
    assert [groups(16, seed=2, epoch=1, round_=r) for r in range(4)] != base
    assert [groups(16, seed=1, epoch=2, round_=r) for r in range(4)] != base
    assert len(set(base)) == 4


def test_the_pairs_of_a_seed_are_what_they_were() -> None:
    """Members of different versions must meet each other: a change here is a change of protocol."""
    assert groups(7, seed=42, epoch=3, round_=5) == ((3, 4), (2, 5), (0, 1, 6))


def test_the_step_against_numpy() -> None:
    generator = torch.Generator().manual_seed(2)
    phi, delta, dbar, pbar = (torch.randn(101, generator=generator) for _ in range(4))
    found = noloco_step(phi, delta, dbar, pbar, alpha=0.5, beta=0.7, gamma=0.3)
    p, d, g, m = (x.double().numpy() for x in (phi, delta, dbar, pbar))
    wanted = 0.5 * d + 0.7 * g + 0.3 * (m - p)
    np.testing.assert_allclose(found[1].numpy(), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0].numpy(), p + wanted, rtol=1e-5, atol=1e-6)


def test_alone_without_momentum_it_follows_its_own_fast_weights() -> None:
    phi, fast = torch.zeros(3), torch.tensor([1.0, -2.0, 4.0])
    found, _ = noloco_step(phi, phi, fast - phi, phi, alpha=0.0, beta=1.0, gamma=0.7)
    torch.testing.assert_close(found, fast)


def radius(alpha: float, gamma: float, group: int) -> float:
    """The largest growth a round of (E phi^2, E phi delta, E delta^2) among endless members.

    Derived anew: with c = 1 - 1/n the pull (mean of the group - phi) has E pull^2 = c E phi^2,
    E phi pull = -c E phi^2 and E delta pull = -c E phi delta.
    """
    c = 1 - 1 / group
    delta2 = np.array([gamma**2 * c, -2 * alpha * gamma * c, alpha**2])
    cross = np.array([-gamma * c, alpha, 0.0])  # E phi delta'
    phi2 = np.array([1.0, 0.0, 0.0]) + 2 * cross + delta2
    return float(max(abs(np.linalg.eigvals(np.array([phi2, cross + delta2, delta2])))))


@given(st.floats(0.0, 0.95), st.integers(2, 3))
def test_the_bound_is_exact(alpha: float, group: int) -> None:
    bound = gamma_bound(alpha, group=group)
    for part in (0.02, 0.3, 0.9, 0.995):
        assert radius(alpha, part * bound, group) < 1
    for part in (1.005, 1.2, 3.0):
        assert radius(alpha, part * bound, group) > 1


def spread_after(alpha: float, gamma: float, rounds: int) -> float:
    """Mean square distance from the mean, of 512 members that only gossip, beginning at 1."""
    members = 512
    phi = torch.randn(members, 4, generator=torch.Generator().manual_seed(7), dtype=torch.double)
    delta = nothing = torch.zeros_like(phi)
    for round_ in range(rounds):
        pairs = torch.tensor(groups(members, seed=11, epoch=1, round_=round_))
        mean = torch.empty_like(phi)
        mean[pairs] = phi[pairs].mean(dim=1, keepdim=True)
        phi, delta = noloco_step(phi, delta, nothing, mean, alpha=alpha, beta=0.7, gamma=gamma)
    return float((phi - phi.mean(dim=0)).square().mean())


@pytest.mark.parametrize(("alpha", "rounds"), [(0.0, 60), (0.5, 60), (0.9, 250)])
def test_just_inside_the_bound_members_meet_and_just_outside_they_part(
    alpha: float, rounds: int
) -> None:
    bound = gamma_bound(alpha)
    assert spread_after(alpha, 0.9 * bound, rounds) < 0.2
    assert spread_after(alpha, 1.1 * bound, rounds) > 5


def test_settings_outside_are_refused_with_the_bound() -> None:
    assert math.isclose(gamma_bound(0.5), 1.5)
    assert math.isclose(gamma_bound(0.9), 0.38)
    check_stable(0.5, 0.7)
    with pytest.raises(MisuseError, match=r"gamma must be in \(0, 0.38\) for alpha 0.9 .* 0.7"):
        check_stable(0.9, 0.7)
    with pytest.raises(MisuseError, match=r"gamma must be in \(0, 1.5\)"):
        check_stable(0.5, 0.0)
    with pytest.raises(MisuseError, match=r"alpha must be in \[0, 1\), not 1"):
        check_stable(1.0, 0.1)
