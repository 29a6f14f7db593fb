"""Eager and delayed outer gradients against the paper's sums in NumPy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.methods.outer import nesterov_step
from atoll.methods.overlap import delayed_update, eager_sum, eager_update


def deltas(members: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(65, generator=generator) for _ in range(members)]


@given(st.integers(1, 9), st.integers(0, 1000))
def test_the_two_forms_of_eager_agree(members: int, seed: int) -> None:
    before, now = deltas(members, seed), deltas(members, seed + 1)
    mean = torch.stack(before).mean(dim=0)
    for member in range(members):
        ours = eager_update(mean, now[member], before[member], share=1 / members)
        others = [d.double().numpy() for j, d in enumerate(before) if j != member]
        wanted = (now[member].double().numpy() + np.sum(others, axis=0)) / members
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-4, atol=1e-5)
        paper = eager_sum(before, now[member], member=member)
        torch.testing.assert_close(ours, paper, rtol=1e-4, atol=1e-5)


def test_eager_with_weights_replaces_the_own_term_of_the_weighted_mean() -> None:
    before, now = deltas(3, 5), deltas(3, 6)
    weights = [1.0, 2.0, 5.0]
    mean = sum(w * d for w, d in zip(weights, before, strict=True)) / 8.0
    found = eager_update(mean, now[1], before[1], share=2.0 / 8.0)
    wanted = (1.0 * before[0] + 2.0 * now[1] + 5.0 * before[2]) / 8.0
    torch.testing.assert_close(found, wanted)


def test_eager_alone_is_the_fresh_gradient() -> None:
    before, now = deltas(1, 1), deltas(1, 2)
    torch.testing.assert_close(eager_update(before[0], now[0], before[0], share=1.0), now[0])


def test_delayed_takes_each_mean_once_one_round_late() -> None:
    theta, momentum = deltas(2, 3)
    means = deltas(4, 9)
    wanted = theta, momentum
    for mean in means[:-1]:
        wanted = nesterov_step(*wanted, mean, lr=0.7, mu=0.9)
    found = theta, momentum
    for late in [None, *means[:-1]]:
        found = delayed_update(*found, late, lr=0.7, mu=0.9)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
