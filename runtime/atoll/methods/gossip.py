"""NoLoCo: random pairs instead of a collective (arXiv 2506.10911).

phi are a member's slow weights, theta its fast ones, delta its momentum. Members hold different
phi; what keeps them together is the pull towards the partner's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.data.order import mix
from atoll.errors import MisuseError

if TYPE_CHECKING:
    from torch import Tensor


def groups(members: int, *, seed: int, epoch: int, round_: int) -> tuple[tuple[int, ...], ...]:
    """Who meets whom in a round: the ranks 0..members-1, in pairs and at most one group of three.

    A seeded permutation by (epoch of the view, round), known to all without a word; every pairing
    is as likely as any other. Ranks in a
    group ascend. One member is a group of one. Section 3 (random local pairing).
    """
    key = mix(mix(mix(seed) ^ epoch) ^ round_)
    order = list(range(members))
    for place in range(members - 1, 0, -1):  # Fisher and Yates; 64 bits make the bias 2^-54
        key = mix(key)
        other = key % (place + 1)
        order[place], order[other] = order[other], order[place]
    pairs = [order[place : place + 2] for place in range(0, members, 2)]
    if len(pairs) > 1 and len(pairs[-1]) == 1:
        alone = pairs.pop()
        pairs[-1] = pairs[-1] + alone
    return tuple(tuple(sorted(pair)) for pair in pairs)


def partners(rank: int, members: int, *, seed: int, epoch: int, round_: int) -> tuple[int, ...]:
    """The ranks that `rank` meets in a round, ascending; none if it is alone."""
    for group in groups(members, seed=seed, epoch=epoch, round_=round_):
        if rank in group:
            return tuple(other for other in group if other != rank)
    raise ValueError(f"rank {rank} is not in [0, {members})")


def noloco_step(
    phi: Tensor,
    delta: Tensor,
    dbar: Tensor,
    pbar: Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """One outer step: (phi', delta'), all of one shape; the fast weights then are phi'.

    delta' = alpha * delta + beta * dbar + gamma * (pbar - phi);  phi' = phi + delta'.
    dbar: mean over the group of theta_j - phi_j (new minus old); pbar: mean of phi_j. Alone, pass
    the own ones. Equations 2 and 3, with the sign of beta that the paper's proof has.
    """
    delta = alpha * delta + beta * dbar + gamma * (pbar - phi)
    return phi + delta, delta


def gamma_bound(alpha: float, *, group: int = 2) -> float:
    """The gossip is mean-square stable exactly for 0 < gamma < this, with groups of n members.

    2 (1 - alpha^2) / (1 + alpha (2/n - 1)). The spread of phi over many members obeys a linear
    recursion of (E phi^2, E phi delta, E delta^2); this is where its largest eigenvalue is 1. The
    paper's own condition is neither necessary nor sufficient.
    """
    return 2 * (1 - alpha**2) / (1 + alpha * (2 / group - 1))


def check_stable(alpha: float, gamma: float, *, group: int = 2) -> None:
    """Raises MisuseError when replicas would drift apart without limit, with the bound."""
    if not 0 <= alpha < 1:
        raise MisuseError(f"alpha must be in [0, 1), not {alpha}")
    bound = gamma_bound(alpha, group=group)
    if not 0 < gamma < bound:
        raise MisuseError(
            f"gamma must be in (0, {bound:.6g}) for alpha {alpha} in groups of {group}, not "
            f"{gamma}: the replicas would not stay together"
        )
