"""The methods, each as what happens after an inner step; the arithmetic is the runtime's own.

A rule counts the payload bytes that one island would send, by `atoll.methods.traffic`.
"""

from __future__ import annotations

import kernels
import numpy as np
import torch
from islands import Islands
from kernels import nesterov
from settings import Run
from torch import Tensor

from atoll.methods import fragments, gossip, overlap, sparse, traffic
from atoll.methods.outer import outer_gradient


class Rule:
    """Synchronous data parallelism; the other rules differ from it."""

    averaged = True

    def __init__(self, islands: Islands, run: Run, seed: int) -> None:
        self.islands = islands
        self.members = islands.size.islands
        self.bytes = 0.0
        self.rounds = 0
        self.spread: list[dict[str, float]] = []
        self.random = np.random.default_rng([seed, 2])

    def after(self, step: int, progress: float) -> None:
        """Called after every inner step, counted from 1; progress: of all tokens, in [0, 1]."""
        self.rounds += 1
        self.bytes += traffic.data_parallel_bytes(self.islands.numel, self.members)

    def models(self) -> Tensor:
        """What is evaluated, fp32 [K, numel]: the mean of their losses is the result."""
        return self.islands.gather()[:1]


def total_of(deltas: list[Tensor]) -> Tensor:
    """Their sum in the members' order."""
    total = torch.zeros_like(deltas[0])
    for delta in deltas:
        total = total + delta
    return total


class DiLoCo(Rule):
    """Blocking, with all, some or changing members; or overlapped by a round."""

    averaged = False

    def __init__(self, islands: Islands, run: Run, seed: int) -> None:
        super().__init__(islands, run, seed)
        o = run.options
        self.every: int = o["sync_every"]
        self.lr: float = o["outer_lr"]
        self.mu: float = o["mu"]
        self.drop: float = o.get("drop", 0.0)
        self.dropped: str = o.get("dropped", "lost")
        self.churn: bool = o.get("churn", False)
        self.theta = islands.first.clone()
        self.momentum = torch.zeros_like(self.theta)
        self.anchors = [self.theta] * self.members

    def after(self, step: int, progress: float) -> None:
        if step % self.every:
            return
        local = self.islands.gather()
        active = self.islands.active
        present = [island for island in active if self.random.random() >= self.drop]
        if present:
            deltas = [outer_gradient(self.anchors[m], local[m]) for m in present]
            self.theta, self.momentum = nesterov(
                self.theta,
                self.momentum,
                total_of(deltas),
                members=len(present),
                lr=self.lr,
                mu=self.mu,
            )
        if self.churn:
            self.change(progress)
        for island in self.islands.active:
            # Whose contribution was late goes on from where it is, and makes it good next time.
            if self.dropped == "lost" or island in present or island not in active:
                self.islands.scatter(island, self.theta)
                self.anchors[island] = self.theta
        self.rounds += 1
        self.bytes += traffic.diloco_bytes(4 * self.islands.numel, len(active))

    def change(self, progress: float) -> None:
        """Four islands, two in the middle third of the tokens, four again."""
        before = self.islands.active
        self.islands.active = [0, 1] if 1 / 3 <= progress < 2 / 3 else list(range(self.members))
        for island in self.islands.active:
            if island not in before:
                self.islands.forget(island)

    def models(self) -> Tensor:
        return self.theta[None]


class Eager(DiLoCo):
    """The others' part of the outer gradient is a round old, the own part is fresh."""

    def __init__(self, islands: Islands, run: Run, seed: int) -> None:
        super().__init__(islands, run, seed)
        self.states = [(self.theta, self.momentum)] * self.members
        self.before: list[Tensor] = []

    def after(self, step: int, progress: float) -> None:
        if step % self.every:
            return
        local = self.islands.gather()
        share = 1 / self.members
        deltas = [outer_gradient(self.states[m][0], local[m]) for m in range(self.members)]
        arrived = self.before or deltas  # the first round blocks
        mean = total_of(arrived) * share
        for m in range(self.members):
            gradient = overlap.eager_update(mean, deltas[m], arrived[m], share=share)
            self.states[m] = nesterov(*self.states[m], gradient, members=1, lr=self.lr, mu=self.mu)
            self.islands.scatter(m, self.states[m][0])
        self.before = deltas
        self.rounds += 1
        self.bytes += traffic.diloco_bytes(4 * self.islands.numel, self.members)

    def models(self) -> Tensor:
        return torch.stack([theta for theta, _ in self.states])


class Delayed(DiLoCo):
    """The whole outer gradient is a round old."""

    mean_before: Tensor | None = None

    def after(self, step: int, progress: float) -> None:
        if step % self.every:
            return
        deltas = [outer_gradient(self.theta, mine) for mine in self.islands.gather()]
        self.theta, self.momentum = overlap.delayed_update(
            self.theta, self.momentum, self.mean_before, lr=self.lr, mu=self.mu
        )
        self.mean_before = total_of(deltas) / self.members
        for island in range(self.members):
            self.islands.scatter(island, self.theta)
        self.rounds += 1
        self.bytes += traffic.diloco_bytes(4 * self.islands.numel, self.members)


class Streaming(Rule):
    averaged = False

    def __init__(self, islands: Islands, run: Run, seed: int) -> None:
        super().__init__(islands, run, seed)
        o = run.options
        self.every, self.overlap = o["sync_every"], o["overlap"]
        self.lr, self.mu, self.alpha, self.codec = o["outer_lr"], o["mu"], o["alpha"], o["codec"]
        self.exchange: str = o["exchange"]
        where = islands.slices()
        places = torch.arange(islands.numel)
        self.parts = [
            torch.cat([places[where[name]] for name in part])
            for part in fragments.fragments(islands.names, o["fragments"])
        ]
        fragments.check_schedule(len(self.parts), period=self.every, overlap=self.overlap)
        self.offsets = fragments.offsets(len(self.parts), self.every)
        self.theta = islands.first.clone()
        self.momentum = torch.zeros_like(self.theta)
        self.under_way: dict[int, Tensor] = {}

    def after(self, step: int, progress: float) -> None:
        starting, applied = fragments.due(
            step, self.offsets, period=self.every, overlap=self.overlap
        )
        if not starting and not applied:
            return
        local = self.islands.gather()
        for p in starting:
            part = self.parts[p]
            deltas = [outer_gradient(self.theta[part], mine[part]) for mine in local]
            encoded = kernels.encoded_bytes(self.codec, len(part))
            if self.exchange == "gather":  # the paper's: what was quantized once, added in fp32
                sent = [kernels.through(self.codec, delta) for delta in deltas]
                self.under_way[p] = total_of(sent) / self.members
                self.bytes += traffic.all_gather_bytes(encoded, self.members)
            else:  # an all-reduce: the mean is quantized again on its way back
                self.under_way[p] = kernels.directly_reduced(self.codec, deltas)
                self.bytes += traffic.all_reduce_bytes(encoded, self.members)
        for p in applied:
            part = self.parts[p]
            new, self.momentum[part] = nesterov(
                self.theta[part],
                self.momentum[part],
                self.under_way.pop(p),
                members=1,
                lr=self.lr,
                mu=self.mu,
            )
            self.theta[part] = new
            for mine in local:
                mine[part] = fragments.mixed(mine[part], new, alpha=self.alpha)
            self.rounds += 1
        if applied:
            for island, mine in enumerate(local):
                self.islands.scatter(island, mine)

    def models(self) -> Tensor:
        return self.theta[None]


class NoLoCo(Rule):
    averaged = False

    def __init__(self, islands: Islands, run: Run, seed: int) -> None:
        super().__init__(islands, run, seed)
        o = run.options
        self.every = o["sync_every"]
        self.alpha, self.beta, self.gamma = o["alpha"], o["beta"], o["gamma"]
        gossip.check_stable(self.alpha, self.gamma)
        self.seed = seed
        self.phi = torch.stack([islands.first] * self.members)
        self.delta = torch.zeros_like(self.phi)

    def after(self, step: int, progress: float) -> None:
        if step % self.every:
            return
        fast = self.islands.gather()
        phi, delta = self.phi.clone(), self.delta.clone()
        for group in gossip.groups(self.members, seed=self.seed, epoch=1, round_=self.rounds):
            ranks = list(group)
            dbar = (fast[ranks] - self.phi[ranks]).mean(dim=0)
            pbar = self.phi[ranks].mean(dim=0)
            for m in ranks:
                phi[m], delta[m] = gossip.noloco_step(
                    self.phi[m],
                    self.delta[m],
                    dbar,
                    pbar,
                    alpha=self.alpha,
                    beta=self.beta,
                    gamma=self.gamma,
                )
        self.phi, self.delta = phi, delta
        for island in range(self.members):
            self.islands.scatter(island, phi[island])
        self.rounds += 1
        self.bytes += traffic.noloco_bytes(self.islands.numel)
        away = phi - phi.mean(dim=0)
        self.spread.append({"progress": progress, "rms": float(away.square().mean().sqrt())})

    def models(self) -> Tensor:
        return self.phi


class SparseLoCo(Rule):
    averaged = False

    def __init__(self, islands: Islands, run: Run, seed: int) -> None:
        super().__init__(islands, run, seed)
        o = run.options
        self.every, self.beta, self.alpha = o["sync_every"], o["beta"], o["alpha"]
        self.median_norm = o.get("median_norm", False)
        self.layout = sparse.SparseLayout(islands.shapes, k=o["k"])
        self.theta = islands.first.clone()
        self.residuals = [torch.zeros_like(self.theta)] * self.members

    def after(self, step: int, progress: float) -> None:
        if step % self.every:
            return
        decoded = []
        for m, mine in enumerate(self.islands.gather()):
            delta = outer_gradient(self.theta, mine)
            e = sparse.accumulated(self.residuals[m], delta, beta=self.beta)
            decoded.append(sparse.decode(sparse.encode(e, self.layout), self.layout))
            self.residuals[m] = sparse.residual(e, decoded[m])
        norms = [one.norm for one in decoded]
        factors = sparse.median_norm_factors(norms) if self.median_norm else None
        total = sparse.decoded_sum(decoded, self.islands.numel, factors=factors)
        self.theta = sparse.sparseloco_step(
            self.theta, total, alpha=self.alpha, members=self.members
        )
        for island in range(self.members):
            self.islands.scatter(island, self.theta)
        self.rounds += 1
        self.bytes += traffic.sparseloco_bytes(self.layout.payload_bytes, self.members)

    def models(self) -> Tensor:
        return self.theta[None]


def rule_of(islands: Islands, run: Run, seed: int) -> Rule:
    kinds: dict[str, type[Rule]] = {
        "dp": Rule,
        "lgreco": Rule,
        "diloco": {"eager": Eager, "delayed": Delayed}.get(run.options.get("overlap", ""), DiLoCo),
        "streaming": Streaming,
        "noloco": NoLoCo,
        "sparseloco": SparseLoCo,
    }
    return kinds[run.method](islands, run, seed)
