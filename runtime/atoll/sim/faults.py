"""What goes wrong, when and to whom: drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable

from atoll.sim.job import Job
from atoll.sim.leader import Leader
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
            (2, self._depose),
            (1, self._fail_a_write),
        ]
        # Each seed has a temper of its own: some see one kind of fault only.
        keep = self._world.random.randint(1, len(self._menu))
        self._menu = self._world.random.sample(self._menu, keep)
        self._pace_s = self._world.between(0.2, 1.5)
        self._strike = self._world.random.choice((0.0, 0.02, 0.06, 0.2))
        job.on_view_change = self._on_view_change
        job.write_fails = self._write_fails
        self._writes_to_fail = 0
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
        faults = [fault for _, fault in self._menu]
        coordinator_fails = self._restart_coordinator in faults
        if self._world.now_s >= self._until_s:
            return
        if self._depose in faults and self._world.chance(self._strike / 2):
            self._depose()
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
        self._writes_to_fail = 0
        for leader in list(job.deposed):
            leader.thaw()
            leader.end(polite=True)
        if job.leader is not None and job.leader.frozen:
            job.leader.thaw()
        if job.leader is None:
            job.start_coordinator()
        job.wanted.update(job.islands)  # also those that are about to leave
        for name in sorted(job.islands):
            job.start_island(name)

    # --- kinds of faults --------------------------------------------------------------------------

    def _victim(self) -> Process | None:
        alive = [p for p in self._job.alive() if not p.frozen]
        return self._world.random.choice(alive) if alive else None

    def _island_of(self, process: Process) -> list[Process]:
        return list(self._job.islands[process.machine.island].shards.values())

    def _crash(self) -> None:
        victim = self._victim()
        if victim is not None:
            whole = self._world.chance(0.3)
            self._world.trace("fault", f"crash {victim.name}{' and its island' if whole else ''}")
            for process in self._island_of(victim) if whole else [victim]:
                process.die(flush=self._world.chance(0.5))

    def _leave(self) -> None:
        victim = self._victim()
        if victim is not None:
            whole = self._world.chance(0.8)
            self._world.trace("fault", f"leave {victim.name}{' and its island' if whole else ''}")
            if self._world.chance(0.5):
                self._job.wanted.discard(victim.machine.island)
            victim.leave()
            for mate in self._island_of(victim) if whole else []:
                self._world.after(self._world.between(0.0, 0.2), mate.leave)

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
                for link in self._job.network.through(victim.id):
                    link.lose_relay()

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
        if self._job.leader is None:
            return
        self._job.kill_coordinator()
        self._world.after(self._world.between(0.05, 1.5), self._start_if_none_leads)

    def lose_store(self) -> None:
        """The coordinator dies with its disk. All islands are turned away, and begin a new job."""
        self._world.trace("fault", "the store is lost")
        self._job.lose_store()
        self._world.after(self._world.between(0.05, 1.5), self._start_if_none_leads)

    def _start_if_none_leads(self) -> None:
        if self._job.leader is None:
            self._job.start_coordinator()

    def _depose(self) -> None:
        """The leader is stopped, and another one leads; or it runs on, cut off from the store. It
        finds out by its next write or question, or in the end by its clock."""
        job, world = self._job, self._world
        old = job.leader
        if old is None:
            return
        if world.chance(0.7):
            old.freeze()
        world.trace("fault", f"the leader is {'stopped' if old.frozen else 'cut off'}")
        wakes_s = world.between(0.0, 3.0)

        def take_over() -> None:
            healed = world.now_s >= self._until_s
            if job.leader is None or (job.leader is old and not healed):
                job.start_coordinator()

        # It may also wake in time: then it has only been slow.
        world.after(world.between(0.1, 1.5), take_over)
        world.after(wakes_s, old.thaw)
        world.after(wakes_s + world.between(0.0, 2.0), lambda: self._notice(old))

    def _notice(self, leader: Leader) -> None:
        if leader in self._job.deposed:
            leader.end(polite=True)

    def _fail_a_write(self) -> None:
        self._writes_to_fail += 1

    def _write_fails(self) -> bool:
        if not self._writes_to_fail:
            return False
        self._writes_to_fail -= 1
        self._world.after(self._world.between(0.05, 1.0), self._start_if_none_leads)
        return True

    def _join(self) -> None:
        name = self._world.random.choice("vwxyz")
        self._world.trace("fault", f"join {name}")
        self._job.start_island(name)
