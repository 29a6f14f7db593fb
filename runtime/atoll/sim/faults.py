"""What goes wrong, when and to whom: drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable

from atoll.sim.job import Job
from atoll.sim.network import SILENCE_S
from atoll.sim.process import Process


class Faults:
    """Strikes at random times, and with some probability in the middle of a change of view."""

    def __init__(self, job: Job, *, until_s: float) -> None:
        self._job, self._world = job, job.world
        self._until_s = until_s
        self._menu: list[tuple[int, Callable[[], None]]] = [
            (5, self._crash),
            (3, self._leave),
            (3, self._freeze),
            (4, self._cut),
            (3, self._break_stream),
            (2, self._unreachable),
            (2, self._restart_coordinator),
            (3, self._join),
            (3, self._crash_in_a_drain),
        ]
        # Each seed has a temper of its own: some see one kind of fault only.
        keep = self._world.random.randint(1, len(self._menu))
        self._menu = self._world.random.sample(self._menu, keep)
        self._pace_s = self._world.between(0.2, 1.5)
        self._strike = self._world.random.choice((0.0, 0.02, 0.06, 0.2))
        job.on_view_change = self._on_view_change
        self._later()

    def _later(self) -> None:
        self._world.after(self._world.between(0.0, 2 * self._pace_s), self._now)

    def _now(self) -> None:
        if self._world.now_s < self._until_s:
            self._draw()
            self._later()

    def _draw(self) -> None:
        weights = [weight for weight, _ in self._menu]
        (choice,) = self._world.random.choices(self._menu, weights)
        choice[1]()

    def _on_view_change(self) -> None:
        """A Fence or an Install is about to be sent; what it says is in the store already."""
        coordinator_fails = any(fault == self._restart_coordinator for _, fault in self._menu)
        if self._world.now_s >= self._until_s:
            return
        if coordinator_fails and self._world.chance(self._strike / 2):
            self._restart_coordinator()
        if self._world.now_s < self._until_s and self._world.chance(self._strike):
            self._world.after(self._world.between(0.0, 0.03), self._draw)

    def heal(self) -> None:
        """From now on nothing goes wrong any more, and what was wrong is mended: all of it, or all
        but one pair of islands that will never reach each other again."""
        job = self._job
        job.network.blocked.clear()
        if len(job.islands) > max(2, job.options.min_islands) and self._world.chance(0.2):
            one, other = self._world.random.sample(sorted(job.islands), 2)
            self._world.trace("fault", f"{one} and {other} never reach each other again")
            job.separate(one, other)
        job.unreachable.clear()
        for process in job.alive():
            process.thaw()
        if job.machine is None:
            job.start_coordinator()
        job.wanted.update(job.islands)  # also those that are about to leave
        for name in sorted(job.islands):
            job.start_island(name)

    # --- kinds of faults --------------------------------------------------------------------------

    def _victim(self) -> Process | None:
        alive = [p for p in self._job.alive() if not p.frozen]
        return self._world.random.choice(alive) if alive else None

    def _crash(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._world.trace("fault", f"crash {victim.name}")
            victim.die(flush=self._world.chance(0.5))

    def _leave(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._world.trace("fault", f"leave {victim.name}")
            if self._world.chance(0.5):
                self._job.wanted.discard(victim.machine.island)
            victim.leave()

    def _crash_in_a_drain(self) -> None:
        self._leave()
        self._world.after(self._world.between(0.0, 0.2), self._crash)

    def _freeze(self) -> None:
        victim = self._victim()
        if victim is None:
            return
        length_s = self._world.random.choice((0.2, 0.7, 2.5))
        self._world.trace("fault", f"freeze {victim.name} for {length_s}")
        victim.freeze()
        self._world.after(length_s, victim.thaw)

        def silence() -> None:
            if victim.frozen:
                for link in self._job.network.of(victim.id):
                    link.close(link.other(victim.id).id, "silent")

        self._world.after(SILENCE_S + 0.01, silence)

    def _cut(self) -> None:
        pairs = sorted(self._job.network.links, key=sorted)
        if not pairs:
            return
        pair = self._world.random.choice(pairs)
        link = self._job.network.links[pair]
        ends = sorted(link.ends)
        kind = self._world.random.choice(("reset", "both", "one"))
        self._world.trace("fault", f"cut {ends} {kind}")
        if kind == "reset":
            link.close(ends[0], "reset")
        else:
            link.cut(mute=set(ends if kind == "both" else ends[:1]))
        length_s = self._world.random.choice((0.0, 0.3, 3.0))
        if length_s:
            self._job.network.blocked.add(pair)
            self._world.after(length_s, lambda: self._job.network.blocked.discard(pair))

    def _break_stream(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._world.trace("fault", f"stream of {victim.name} breaks")
            self._job.break_stream(victim)

    def _unreachable(self) -> None:
        victim = self._victim()
        if victim is None:
            return
        name = victim.machine.island
        length_s = self._world.between(0.1, 1.5)
        self._world.trace("fault", f"no coordinator for {name} for {length_s:.2f}")
        self._job.unreachable.add(name)
        self._job.break_stream(victim)
        self._world.after(length_s, lambda: self._job.unreachable.discard(name))

    def _restart_coordinator(self) -> None:
        if self._job.machine is None:
            return
        self._job.kill_coordinator()

        def start() -> None:
            if self._job.machine is None:
                self._job.start_coordinator()

        self._world.after(self._world.between(0.05, 1.5), start)

    def _join(self) -> None:
        name = self._world.random.choice("vwxyz")
        self._world.trace("fault", f"join {name}")
        self._job.start_island(name)
