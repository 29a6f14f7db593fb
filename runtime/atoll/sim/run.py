"""One seed from beginning to end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from atoll.sim.checks import Violation
from atoll.sim.faults import Faults
from atoll.sim.job import Job
from atoll.sim.process import CHANNELS
from atoll.sim.world import World

MANY_EVERY = 50
MANY = 16
"""Peers in every so many-th seed; the others have a few, for they show the same and are quick."""
RELAYED_PART, RELAYED_S = 0.15, 8.0
"""Of jobs of three or more, so many have two islands that never reach each other; they find a relay
only after some seconds, and it is to meet with faults, too."""
DUPLICATED = (0.0, 0.0, 0.02, 0.1, 0.5)
"""Of the messages to and from the coordinator so many come twice, in a seed."""
STORE_LOST = 0.05
"""In so many the coordinator once loses its disk."""
STEADY_S = 2.0
PATIENCE_S = 30.0
"""Until everybody is in one view and works, once nothing goes wrong any more. The slowest: a redial
after 5 s, twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one seed has seen."""

    seed: int
    happened: int
    commits: int
    installs: int
    told: int  # of them with measured links
    epochs: int
    lost_stores: int
    took_s: float  # simulated
    healed_after_s: float


def simulate(seed: int, *, trace: Callable[[str], None] | None = None) -> Summary:
    """Runs one seed. Raises Violation when an invariant does not hold."""
    world = World(seed, trace=trace)
    count = world.random.randint(1, 5)
    shards = world.random.choice((1, 1, 2, 2, 3))
    count = max(1, count - (shards - 1)) if shards > 2 else count
    if seed % MANY_EVERY == MANY_EVERY - 1:
        count = MANY // shards
    job = Job(world, world.random.randint(1, count), shards)
    for name in "abcdefghijklmnopqrstu"[:count]:
        world.after(world.between(0.0, 0.3), lambda n=name: job.start_island(n))  # type: ignore[misc]
    until_s = 0.5 + world.between(0.5, 5.0)
    # Of another generator, so that the other seeds stay what they are.
    early = random.Random(f"relays {seed}")
    if count >= 3 and early.random() < RELAYED_PART:
        job.separate(*early.sample(list("abcdefghijklmnopqrstu"[:count]), 2))
        until_s += RELAYED_S
    chance = early.choice(DUPLICATED)
    job.twice = lambda: early.random() < chance
    try:
        faults = Faults(job, until_s=until_s)
        if early.random() < STORE_LOST:
            world.after(early.uniform(0.5, until_s), faults.lose_store)
        world.run_until(until_s + 0.1)
        faults.heal()
        world.trace("fault", "everything is mended")
        healed_after_s = _wait_for_progress(world, job)
    except Violation as violation:
        text = f"{violation}\n  at {world.now_s:.4f} s; python -m atoll.sim --seed {seed} --trace"
        raise Violation(text) from None
    assert job.machine is not None
    return Summary(
        seed=seed,
        happened=world.happened,
        commits=job.checks.commits,
        installs=job.checks.installs,
        told=job.checks.told,
        epochs=job.machine.view.epoch,
        lost_stores=job.lost_stores,
        took_s=world.now_s,
        healed_after_s=healed_after_s,
    )


def _stays_together(world: World, job: Job) -> None:
    """Without a fault nobody is lost: not even one that two others keep outside."""
    assert job.machine is not None
    before = _changes(world, job)
    world.run_until(world.now_s + (STEADY_S if job.separated else 0.0))
    if _changes(world, job) > before:
        raise Violation(f"steady: view {job.machine.view.epoch} without any fault")


def _changes(world: World, job: Job) -> int:
    """Views issued by the present coordinator, but for those that only tell of measured links."""
    assert job.machine is not None
    counts = job.machine.status(world.now_s).view_changes
    return sum(count for cause, count in counts.items() if cause != "links")


def _wait_for_progress(world: World, job: Job) -> float:
    """All islands come into one view and commit ops on every channel in it, also when two of them
    can never reach each other: there are more, which relay."""
    began_s = world.now_s
    marks: dict[tuple[bytes, int], int] = {}
    epoch = 0
    while world.now_s < began_s + PATIENCE_S:
        world.run_until(world.now_s + 0.1)
        assert job.machine is not None
        view = job.machine.view
        inside = [
            p
            for p in job.alive()
            if p.machine.member and p.machine.view == view.ring(p.machine.shard)
        ]
        expected = job.shards * len(job.islands)
        if len(inside) < expected or len(inside) != len(view.members):
            marks = {}
            continue
        counts = {(p.id, n): p.engine.channel(n).committed for p in inside for n in CHANNELS}
        if not marks or view.epoch != epoch:
            epoch, marks = view.epoch, counts
        elif all(counts[key] >= marks[key] + 2 for key in marks):
            took_s = world.now_s - began_s
            _stays_together(world, job)
            return took_s
    states = ", ".join(
        f"{p.name}: view {p.machine.view.epoch} of {len(p.machine.view.members)}"
        f"{'' if p.machine.member else ' (outside)'}{' frozen' if p.frozen else ''}"
        for p in job.alive()
    )
    raise Violation(
        f"progress: nothing for {PATIENCE_S:g} s after all faults were mended: {states}"
    )
