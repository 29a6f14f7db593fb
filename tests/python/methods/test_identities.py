"""Where the methods become one another: whole rounds of small models, with the core's kernels."""

from __future__ import annotations

import torch

from atoll import _core
from atoll.methods import sparse
from atoll.methods.fragments import due, fragments, mixed, offsets
from atoll.methods.gossip import noloco_step
from atoll.methods.outer import outer_gradient

NUMEL, MEMBERS, LR = 40, 3, 0.05


def gradient(theta: torch.Tensor, member: int, step: int) -> torch.Tensor:
    """Of a quadratic that each member sees at another place at every step."""
    generator = torch.Generator().manual_seed(100 * member + step)
    return theta - torch.randn(NUMEL, generator=generator)


def trained(theta: torch.Tensor, member: int, first: int, steps: int) -> torch.Tensor:
    """theta_i after `steps` steps of SGD."""
    for step in range(first, first + steps):
        theta = theta - LR * gradient(theta, member, step)
    return theta


def outer_step(
    theta: torch.Tensor, momentum: torch.Tensor, locals_: list[torch.Tensor], eta: float, mu: float
) -> tuple[torch.Tensor, torch.Tensor]:
    total = sum((outer_gradient(theta, one) for one in locals_), torch.zeros_like(theta))
    theta_out, momentum_out = torch.empty_like(theta), torch.empty_like(theta)
    _core.nesterov_step(
        theta_out.data_ptr(),
        momentum_out.data_ptr(),
        theta.data_ptr(),
        momentum.data_ptr(),
        total.data_ptr(),
        theta.numel(),
        1 / len(locals_),
        eta,
        mu,
    )
    return theta_out, momentum_out


def diloco(rounds: int, *, every: int, eta: float, mu: float) -> torch.Tensor:
    theta = momentum = torch.zeros(NUMEL)
    for round_ in range(rounds):
        locals_ = [trained(theta, m, round_ * every, every) for m in range(MEMBERS)]
        theta, momentum = outer_step(theta, momentum, locals_, eta, mu)
    return theta


def fedavg(rounds: int, every: int) -> torch.Tensor:
    theta = torch.zeros(NUMEL)
    for round_ in range(rounds):
        locals_ = [trained(theta, m, round_ * every, every) for m in range(MEMBERS)]
        theta = torch.stack(locals_).mean(dim=0)
    return theta


def test_eta_one_without_momentum_is_federated_averaging() -> None:
    torch.testing.assert_close(diloco(5, every=7, eta=1.0, mu=0.0), fedavg(5, 7))


def test_a_round_of_one_sgd_step_is_data_parallelism() -> None:
    theta = torch.zeros(NUMEL)
    for step in range(20):
        mean = torch.stack([gradient(theta, m, step) for m in range(MEMBERS)]).mean(dim=0)
        theta = theta - LR * mean
    torch.testing.assert_close(diloco(20, every=1, eta=1.0, mu=0.0), theta)


def test_streaming_one_fragment_without_overlap_is_diloco() -> None:
    """alpha 0: the local copy takes what the outer one takes."""
    names = ["blocks.0.weight"]
    assert fragments(names, 1) == (("blocks.0.weight",),)
    theta = momentum = torch.zeros(NUMEL)
    locals_ = [theta] * MEMBERS
    for step in range(1, 31):
        locals_ = [trained(one, m, step - 1, 1) for m, one in enumerate(locals_)]
        started, applied = due(step, offsets(1, 6), period=6, overlap=0)
        assert started == applied
        if applied:
            theta, momentum = outer_step(theta, momentum, locals_, 0.4, 0.9)
            locals_ = [mixed(one, theta, alpha=0.0) for one in locals_]
    torch.testing.assert_close(theta, diloco(5, every=6, eta=0.4, mu=0.9))


def test_noloco_in_one_group_without_memory_is_federated_averaging() -> None:
    phi = torch.zeros(MEMBERS, NUMEL)
    delta = torch.zeros_like(phi)
    for round_ in range(5):
        fast = torch.stack([trained(phi[m], m, round_ * 7, 7) for m in range(MEMBERS)])
        dbar, pbar = (fast - phi).mean(dim=0), phi.mean(dim=0)
        steps = [
            noloco_step(phi[m], delta[m], dbar, pbar, alpha=0.0, beta=1.0, gamma=0.7)
            for m in range(MEMBERS)
        ]
        phi = torch.stack([one for one, _ in steps])
        delta = torch.stack([one for _, one in steps])
    for m in range(MEMBERS):
        torch.testing.assert_close(phi[m], fedavg(5, 7))


def test_sparseloco_of_all_numbers_is_federated_averaging_but_for_two_bits() -> None:
    """Entries are all kept, so what a payload lacks is the quantizer's error, which the residual
    holds to the bit."""
    theta = torch.zeros(NUMEL)
    everything = torch.arange(NUMEL)
    for round_ in range(3):
        sent = []
        for m in range(MEMBERS):
            delta = outer_gradient(theta, trained(theta, m, round_ * 7, 7))
            one = sparse.Decoded(positions=everything, values=delta, norm=float(delta.norm()))
            assert not bool(sparse.residual(delta, one).any())
            sent.append(one)
        total = sparse.decoded_sum(sent, NUMEL)
        theta = sparse.sparseloco_step(theta, total, alpha=1.0, members=MEMBERS)
    torch.testing.assert_close(theta, fedavg(3, 7))
