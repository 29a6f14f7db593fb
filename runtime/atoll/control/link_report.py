"""One line that says what was measured of a view's links, and what the plans make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll._core import Topology

KIB, MIB = 1 << 10, 1 << 20
MOST_MEMBERS = 32
"""Of larger views it would take too long to work it out a second time, only to say it."""


def chosen(topology: Topology) -> str:
    """Lines, round trips, parts, and for three sizes the plan, its chunks and predicted seconds."""
    from atoll import _core

    ranks = range(topology.members)
    links = [topology.link(one, other) for one in ranks for other in ranks if one != other]
    rates = [rate * 8e-6 for rate, _ in links]
    trips = [rtt_s * 1e3 for _, rtt_s in links]
    shares = ", ".join(f"{weight / 655.36:.0f}" for weight in topology.part_weights)
    plans = []
    for nbytes, text in ((KIB, "1 KiB"), (MIB, "1 MiB"), (64 * MIB, "64 MiB")):
        plan, chunk_bytes = _core.plan_all_reduce(nbytes // 4, topology.members, topology=topology)
        seconds = topology.predict(nbytes, chunk_bytes)
        others = ", ".join(
            f"{other} {value:.3g} s"
            for other, value in sorted(seconds.items(), key=lambda entry: entry[1])
            if other != plan and value < float("inf")
        )
        plans.append(
            f"{text} {plan} {seconds[plan]:.3g} s, chunks of {chunk_bytes // KIB} KiB ({others})"
        )
    return (
        f"links of {min(rates):.0f} to {max(rates):.0f} Mbit/s, round trips of {min(trips):.1f} to "
        f"{max(trips):.1f} ms; parts of {shares} %; all-reduces by predicted time: "
        + "; ".join(plans)
    )
