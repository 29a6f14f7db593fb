"""From a job, a choice and a network to what the training would be like. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from atoll.planning.job import (
    ADVISED_OVERLAP,
    METHODS,
    Choice,
    Fragment,
    Job,
    fragments,
    memory_bytes_per_param,
)
from atoll.planning.network import Floats, Network
from atoll.planning.simulate import Cost, Exchange, Schedule, Timing, simulate
from atoll.planning.traffic import Traffic, Wires, pair_bytes, pair_cost

GRID_GBIT = np.logspace(-1, 3, 50)
"""Gbit/s; the rates that the table of arXiv 2501.18512 is given in."""
TARGET = 0.95
"""From here on little time is lost, and a method that changes training less is the better one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Of one method. Bytes and rates are of one island.

    compute_utilization: computing as a part of all time, the mean of the islands. plan: how the
    largest exchange's bytes go. sent_bytes_per_round: in `every` steps, mean and largest of the
    islands; as much is received. peak_bytes_per_s: while the largest exchange takes the link.
    sync_s: of the longest exchange of a fragment, from all being ready to its end. waiting_s: of
    the slowest island, in a round. hours: of job.steps steps.
    """

    choice: Choice
    compute_utilization: float
    plan: str
    exchanges_per_round: int
    sent_bytes_per_round: float
    most_sent_bytes_per_round: float
    peak_bytes_per_s: float
    mean_bytes_per_s: float
    sync_s: float
    round_s: float
    waiting_s: float
    hours: float
    memory_bytes_per_param: float


def predict(job: Job, choice: Choice, wires: Wires) -> Prediction:
    """What training `job` by `choice` over these wires would be like."""
    network = wires.network
    timing = _timing(job, choice, wires)
    timing_s = timing.period_s
    computing_s = network.step_s * choice.every
    parts = [wires.traffic(choice, part.params) for part in fragments(job, choice)]
    largest = max(parts, key=lambda part: part.busy_s)
    twice = 2 if choice.method == "noloco" and choice.bits is None else 1  # Delta, and phi
    round_s = float(timing_s.max())
    sent = twice * sum(part.sent_bytes for part in parts)
    return Prediction(
        choice=choice,
        compute_utilization=_share(computing_s, timing_s),
        plan=largest.plan,
        exchanges_per_round=len(parts) * twice,
        sent_bytes_per_round=sent,
        most_sent_bytes_per_round=twice * sum(part.most_sent_bytes for part in parts),
        peak_bytes_per_s=_peak(network, largest),
        mean_bytes_per_s=sent / round_s,
        sync_s=timing.sync_s,
        round_s=round_s,
        waiting_s=float((timing_s - computing_s)[np.argmax(computing_s)]),
        hours=round_s / choice.every * job.steps / 3600,
        memory_bytes_per_param=memory_bytes_per_param(choice, job, network.islands),
    )


def _peak(network: Network, largest: Traffic) -> float:
    """Bytes per second; notices and a group of three count as bytes, and no link is faster."""
    if largest.busy_s == 0:
        return 0.0
    return min(largest.most_sent_bytes / largest.busy_s, network.fastest_bytes_per_s)


def schedule(job: Job, choice: Choice, wires: Wires) -> Schedule:
    """The exchanges of a period."""
    exchanges: list[Exchange] = []
    in_pairs = choice.method == "noloco" and choice.bits is None
    for number, part in enumerate(fragments(job, choice)):
        if choice.by_layer and not in_pairs:
            exchanges += _by_layer(job, choice, wires, number, part)
            continue
        cost = _cost_of(choice, wires, part.params)
        over = part.offset + 1 + choice.overlap
        if in_pairs:
            # phi has been known since the last outer step: it goes while the inner steps run.
            exchanges.append(_exchange(0, 0, choice.every + choice.overlap, 0, number, cost))
            exchanges.append(
                _exchange(
                    choice.every - 1, job.units, choice.every + choice.overlap, 0, number, cost
                )
            )
        else:
            exchanges.append(_exchange(part.offset, job.units, over, 0, number, cost))
    return Schedule(every=choice.every, units=job.units, exchanges=tuple(exchanges))


def _by_layer(
    job: Job, choice: Choice, wires: Wires, number: int, part: Fragment
) -> Iterator[Exchange]:
    """From the last layer to the first: when a layer's backward pass by weight is done."""
    over = part.offset + 1 + choice.overlap
    blocks = part.params - part.outside_params
    for layer in reversed(part.layers):
        # forward, then two units for each layer behind this one, then its own.
        ready = job.layers + 2 * (job.layers - 1 - layer) + (2 if layer else 1)
        cost = _cost_of(choice, wires, blocks // len(part.layers))
        yield _exchange(part.offset, ready, over, layer, number, cost)
    if part.outside_params:
        cost = _cost_of(choice, wires, part.outside_params)
        yield _exchange(part.offset, job.units, over, 0, number, cost)


def _exchange(
    step: int, ready: int, needed_in: int, needed: int, fragment: int, cost: Callable[[int], Cost]
) -> Exchange:
    return Exchange(
        step=step, ready=ready, needed_in=needed_in, needed=needed, fragment=fragment, cost=cost
    )


def _cost_of(choice: Choice, wires: Wires, params: int) -> Callable[[int], Cost]:
    if choice.method == "noloco" and choice.bits is None:
        wire = pair_bytes(choice, params)
        return lambda round_: pair_cost(wires.network, wire, round_)
    traffic = wires.traffic(choice, params)
    cost = Cost(busy_s=traffic.busy_s, latency_s=traffic.latency_s)
    return lambda round_: cost


def utilization(job: Job, choice: Choice, wires: Wires) -> float:
    """`compute_utilization` alone."""
    period_s = _timing(job, choice, wires).period_s
    return _share(wires.network.step_s * choice.every, period_s)


def _share(computing_s: Floats, period_s: Floats) -> float:
    return min(1.0, float(np.mean(computing_s / period_s)))  # 1 plus rounding is 1


def _timing(job: Job, choice: Choice, wires: Wires) -> Timing:
    """Of all islands. Where all exchange with all, those of one pace are one."""
    step_s = wires.network.step_s
    if len(step_s) < 2:
        return Timing(period_s=step_s * choice.every, sync_s=0.0)
    plan = schedule(job, choice, wires)
    if any(exchange.cost(0).group is not None for exchange in plan.exchanges):
        return simulate(plan, step_s)
    paces, pace_of = np.unique(step_s, return_inverse=True)
    timing = simulate(plan, paces)
    return Timing(period_s=timing.period_s[pace_of], sync_s=timing.sync_s)


def needed_gbit(job: Job, choice: Choice, network: Network, target: float) -> float:
    """The first of GRID_GBIT at which compute utilization reaches `target`; infinity if none does.

    All links of the network are given that rate. By halving: it does not fall with the rate.
    """
    low, high = 0, len(GRID_GBIT)
    while low < high:
        middle = (low + high) // 2
        wires = Wires(network.with_rate(float(GRID_GBIT[middle]) * 1e9 / 8))
        if utilization(job, choice, wires) >= target:
            high = middle
        else:
            low = middle + 1
    return float(GRID_GBIT[low]) if low < len(GRID_GBIT) else float("inf")


def enough_overlap(job: Job, choice: Choice, wires: Wires, target: float) -> int | None:
    """The least overlap, of those that are advised, with which a choice reaches the target.

    None: none does, or the choice's own does already.
    """
    for overlap in range(choice.overlap, min(ADVISED_OVERLAP, choice.every - 1) + 1):
        if utilization(job, replace(choice, overlap=overlap), wires) >= target:
            return overlap if overlap > choice.overlap else None
    return None


def recommended(predictions: dict[str, Prediction], target: float = TARGET) -> tuple[str, str]:
    """The method that suits, and why, in a sentence.

    Of those whose compute utilization reaches the target the one that changes training least
    (METHODS is in that order); if none does, the one with the best.
    """
    order = [method for method in METHODS if method in predictions]
    busy = {method: predictions[method].compute_utilization for method in order}
    for method in order:
        if busy[method] >= target:
            before = order[: order.index(method)]
            if not before:
                return method, f"it keeps islands {_percent(busy[method])} busy and is exact"
            others = ", ".join(f"{other} {_percent(busy[other])}" for other in before)
            return method, (
                f"of the methods that keep islands at least {_percent(target)} busy it changes "
                f"training least: {_percent(busy[method])}, where {others} would"
            )
    best = max(order, key=lambda method: busy[method])
    return best, (
        f"no method keeps islands {_percent(target)} busy here; this one comes nearest, "
        f"with {_percent(busy[best])}"
    )


def _percent(share: float) -> str:
    # Never round up to what was not reached.
    return f"{int(share * 1000) / 10:g} %"
