"""Kills the coordinator of a real job, again and again, and checks that nothing is lost by it.

    python tests/python/processes/coordinator_kills.py --kills 20 --seed 1 --store sqlite

The job's islands run `worker.py` under a launcher. The coordinator is killed at random: out of the
blue, just after it has said what it did (a view, a join), in the middle of the change of view that
a killed island causes, while an island joins. With SQLite the same one is started again; with etcd
another one leads, and the killed one comes back as a standby; some are not killed but stopped, in
the middle of whatever they do, and wake when another one leads and has changed the view.

Checked: rounds commit while there is no coordinator; no island is lost that was not killed; at the
end the journals of all islands agree on every round, bit for bit, and show every sample used
exactly once.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Cluster, Etcd
from kill_rounds import ROUND_DEADLINE_S, _alive, _events, _last_round, _newest_rounds, _up_to_date

from atoll.data.journal import audit, read
from atoll_launcher.exit_codes import CANNOT_JOIN

HERE = Path(__file__).parent
BATCH = 4  # of worker.py, as are two steps to a round
END_S = 90.0
KINDS = ("blue", "after a line", "island lost", "island joins")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A job whose coordinator is to be killed. `store`: sqlite or etcd."""

    islands: int = 3
    kills: int = 8
    seed: int = 0
    elements: int = 100_000
    step_s: float = 0.05
    store: str = "sqlite"

    @property
    def samples(self) -> int:
        """Enough for all kills, each with what it takes to come back."""
        return (self.kills + 3) * self.islands * BATCH * round(6.0 / self.step_s)


@dataclass(slots=True)
class Outcome:
    """`kills`: by kind. `idle_rounds`: committed while there was no coordinator."""

    kills: dict[str, int] = field(default_factory=dict)
    idle_rounds: int = 0
    rounds: int = 0
    problems: list[str] = field(default_factory=list)


class Story:
    """One job, from its beginning to its end."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.chance = random.Random(options.seed)
        self.outcome = Outcome()
        self.etcd = Etcd(folder) if options.store == "etcd" else None
        store = f"etcd://{self.etcd.addresses}/kills" if self.etcd else f"sqlite:{folder}/job.db"
        count = 3 if self.etcd else 1
        self.cluster = Cluster(folder, store, count=count, min_islands=options.islands)
        self.launchers: list[subprocess.Popen[bytes]] = []
        self.launches = 0
        self.shot = 0  # islands killed on purpose
        self.joined = 0

    def run(self) -> Outcome:
        try:
            self.cluster.start_all()
            self._launch(self.options.islands)
            self._wait_round(0)
            kinds: list[str] = []
            for _ in range(self.options.kills):
                every = (*KINDS, "stopped") if self.etcd else KINDS
                kinds = kinds or self.chance.sample(every, len(every))  # each of them soon
                if self.launchers[0].poll() is not None:
                    self.outcome.problems.append("the job was over before all kills: more samples")
                    break
                self._strike(kinds.pop())
            for launcher in self.launchers:
                code = launcher.wait(END_S)
                if code:
                    self.outcome.problems.append(f"a launcher exited with {code}")
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            self.outcome.problems.append(f"hung: {error}")
        finally:
            for launcher in self.launchers:
                if launcher.poll() is None:
                    launcher.send_signal(signal.SIGINT)
                    launcher.wait(20)
            self.cluster.close()
            if self.etcd:
                self.etcd.kill()
        self._check()
        return self.outcome

    # --- what is done to it -----------------------------------------------------------------------

    def _launch(self, islands: int) -> None:
        number, self.launches = self.launches, self.launches + 1
        command = [
            *(sys.executable, "-m", "atoll_launcher.main", "run", "--plain"),
            *("--join", self.cluster.addresses, "--islands", str(islands)),
            *("--max-restarts", "1000", "--threads", "1", "--log-dir", str(self.folder)),
            *("--events", str(self.folder / f"events-{number}.jsonl"), str(HERE / "worker.py")),
            *("--elements", str(self.options.elements), "--samples", str(self.options.samples)),
            *("--step-s", str(self.options.step_s)),
        ]
        with (self.folder / f"launcher-{number}.log").open("wb") as log:
            self.launchers.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))

    def _strike(self, kind: str) -> None:
        leader = self.cluster.wait_leader()
        seen = len(self.cluster.log(leader))
        time.sleep(self.chance.uniform(0.0, 0.5))
        if kind in ("after a line", "island lost") and not self._shoot():
            kind = "blue"
        if kind == "island joins":
            self.joined += 1
            self._launch(1)
            # Most of it is Python's own start.
            time.sleep(self.chance.uniform(1.5, 4.0))
        elif kind == "island lost":
            time.sleep(self.chance.uniform(0.0, 0.3))
        elif kind == "after a line":
            self._line(leader, seen, self.chance.choice(("view", "left", "joined")))
        self.outcome.kills[kind] = self.outcome.kills.get(kind, 0) + 1
        if kind == "stopped":
            self._stop(leader)
            return
        self.cluster.kill(leader)
        if kind == "blue" and self.cluster.leader() is None:
            # Nothing else happened: training has to go on without any coordinator.
            before = _last_round(self.folder)
            self._wait_round(before + 1)
            if self.cluster.leader() is None:
                self.outcome.idle_rounds += _last_round(self.folder) - before
        else:
            time.sleep(self.chance.uniform(0.0, 1.5))
        self.cluster.start(leader)
        self.cluster.wait_leader()
        self._wait_round(_last_round(self.folder))
        self._wait(self._all_train, "those that joined to train")

    def _stop(self, leader: int) -> None:
        if self.chance.random() < 0.5 and self._shoot():
            time.sleep(self.chance.uniform(0.0, 0.3))  # in the middle of the change, perhaps
        self.cluster.stop(leader, signal.SIGSTOP)
        seen = len(self.cluster.log(leader))
        other = self.cluster.wait_leader(other_than=leader)
        views = self.cluster.log(other).count(" INFO view ")
        if self._shoot():
            self._wait(lambda: self.cluster.log(other).count(" INFO view ") > views, "a view")
        time.sleep(self.chance.uniform(0.0, 2.0))
        self.cluster.stop(leader, signal.SIGCONT)
        self._wait(lambda: "leads no more" in self.cluster.log(leader)[seen:], "it to notice")
        said = [x for x in self.cluster.log(leader)[seen:].splitlines() if " INFO view " in x]
        if said:
            self.outcome.problems.append(f"a deposed leader has issued {said}")
        self._wait_round(_last_round(self.folder))
        self._wait(self._all_train, "those that joined to train")

    def _all_train(self) -> bool:
        # The next launcher names its island after those that it sees.
        return len(_newest_rounds(self.folder)) >= self.options.islands + self.joined

    def _shoot(self) -> bool:
        """Kills an island, unless it would be the last to hold the state."""
        alive: dict[str, int] = {}
        for path in sorted(self.folder.glob("events-*.jsonl")):
            alive |= _alive(path)
        newest = _last_round(self.folder)
        victims = sorted(set(_up_to_date(self.folder, newest)) & set(alive))
        if len(victims) < 2:
            return False
        subprocess.run(["kill", "-KILL", str(alive[self.chance.choice(victims)])], check=False)
        self.shot += 1
        return True

    def _line(self, leader: int, seen: int, word: str) -> None:
        """Returns as soon as the coordinator has said it: it is being carried out just now."""
        end = time.monotonic() + ROUND_DEADLINE_S
        while time.monotonic() < end:
            lines = [x for x in self.cluster.log(leader)[seen:].splitlines() if " round " not in x]
            if any(f" {word}" in line for line in lines):
                return
            time.sleep(0.0005)

    def _wait_round(self, after: int) -> None:
        self._wait(lambda: _last_round(self.folder) > after, f"a round after {after}")

    def _wait(self, happened: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + ROUND_DEADLINE_S
        while not happened() and self.launchers[0].poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"waited {ROUND_DEADLINE_S:g} s for {what}")
            self._try_again()
            time.sleep(0.01)

    def _try_again(self) -> None:
        """A launcher waits 3 s for a coordinator. One that begins just when there is none, on a
        busy machine, gives up before the killed one is back: whoever started it does so again."""
        for launcher in self.launchers[1:]:
            if launcher.poll() == CANNOT_JOIN:
                self.launchers.remove(launcher)
                self._launch(1)

    # --- what must have come of it ----------------------------------------------------------------

    def _check(self) -> None:
        found = audit(read(self.folder), samples=self.options.samples, passes=1)
        self.outcome.rounds = found.rounds
        self.outcome.problems += found.problems
        exits = [
            event
            for path in self.folder.glob("events-*.jsonl")
            for event in _events(path)
            if event["kind"] == "exited" and (event["code"] or event["signal"])
        ]
        if len(exits) > self.shot:
            self.outcome.problems.append(f"{self.shot} islands were killed, but {exits} ended")


def run(options: Options, folder: Path) -> Outcome:
    """Runs one job to its end and checks it."""
    return Story(options, folder).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in Options.__annotations__:
        default = getattr(Options(), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--keep", type=Path, help="folder for all logs; not set: thrown away")
    arguments = vars(parser.parse_args())
    keep = arguments.pop("keep")
    with tempfile.TemporaryDirectory(prefix="atoll-kill-") as name:
        folder = keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = run(Options(**arguments), folder)
    print(f"{outcome.rounds} rounds, {outcome.idle_rounds} without a coordinator, {outcome.kills}")
    for problem in outcome.problems:
        print(f"BROKEN: {problem}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
