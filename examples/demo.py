"""Three islands train; one is killed, one more joins. What that did is measured and printed.

    make demo        or        .venv/bin/python examples/demo.py

Everything is a real process that a user could have started. The exit status is 0 only when the
validation loss fell, all islands' outer parameters stayed equal, every sample was used exactly
once a pass, and nothing hung.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import secrets
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import FrameType

from demo_summary import Event, Run, of_kind, parse_event, summarize, table, validation

HERE = Path(__file__).resolve().parent
# The program beside this interpreter, whatever the user's PATH says.
ATOLL = [str(Path(sys.executable).with_name("atoll"))]
POLL_S = 0.02
STOP_S = 5.0  # from SIGTERM to SIGKILL

# Nothing may take longer than this: it is fifty rounds, or ten times the start of an island.
STALL_S = 60.0

# A pass of this size is over after about four fifths of the run, so that one is seen whole.
MAX_BYTES = 2_500_000
BLOCK = 64  # the script's own default


class DemoFailed(Exception):
    """The run cannot go on; the message says why."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=60, help="outer steps (60)")
    add("--seed", type=int, help="of the moment of the kill and of its victim (any)")
    add("--out", type=Path, default=HERE.parent / "build-demo", help="folder for plot and logs")
    add("--deadline-s", type=float, default=300.0, help="it failed when it takes longer (300)")
    args = parser.parse_args()
    if args.rounds < 9:
        parser.error(f"--rounds must be at least 9, not {args.rounds}: one is killed, one joins")
    return args


@dataclass(slots=True, kw_only=True)
class Process:
    """One `atoll run`: its output goes to a file, its events come from another."""

    command: Sequence[str]
    folder: Path
    events: list[Event] = field(default_factory=list)
    began_s: float = 0.0
    _popen: subprocess.Popen[bytes] | None = None
    _offset: int = 0

    def start(self) -> None:
        self.folder.mkdir(parents=True)
        options = ["--events", str(self._events_path), "--log-dir", str(self.folder), "--plain"]
        _, verb, *rest = self.command
        # What the user's shell says about other jobs does not concern this one.
        env = {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
        self.began_s = time.time()
        with self.output.open("wb") as output:
            self._popen = subprocess.Popen(
                [*ATOLL, verb, *options, *rest],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
            )

    @property
    def output(self) -> Path:
        return self.folder / "output.log"

    @property
    def _events_path(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def exit_code(self) -> int | None:
        return None if self._popen is None else self._popen.poll()

    def read_events(self) -> list[Event]:
        """Return the events that came in since the last call."""
        with contextlib.suppress(FileNotFoundError), self._events_path.open("rb") as file:
            file.seek(self._offset)
            # The last line may not be complete yet.
            *lines, _ = file.read().split(b"\n")
            self._offset += sum(len(line) + 1 for line in lines)
            new = [parse_event(line.decode()) for line in lines]
            self.events += new
            return new
        return []

    def island_pids(self) -> dict[str, int]:
        """Return the process ids of the islands that have not exited."""
        pids: dict[str, int] = {}
        for event in self.events:
            if event.kind == "started":
                pids[event.island] = event.fields["pid"]
            elif event.kind == "exited":
                pids.pop(event.island, None)
        return pids

    def stop(self) -> None:
        """End the launcher, which ends its islands; then whatever is left, by its id."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self._popen.terminate()
        try:
            self._popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self.read_events()
        for pid in self.island_pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Demo:
    """Follows the job and does at each moment what the story wants."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.rounds: int = args.rounds
        self.seed: int = secrets.randbelow(10_000) if args.seed is None else args.seed
        # Of its own, for somebody may run the demo twice at once.
        self.out: Path = args.out / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self._random = random.Random(self.seed)
        self._deadline_s = time.time() + args.deadline_s
        self._show_every = max(1, args.rounds // 10)
        self._next_shown = 0
        self._losses: dict[str, float] = {}  # what each island reported last
        options = {
            "--rounds": args.rounds,
            "--max-bytes": MAX_BYTES,
        }
        script = [os.path.relpath(HERE / "train_gpt.py")]
        self._script = script + [str(word) for pair in options.items() for word in pair]
        run = ["atoll", "run", "--standalone", "--islands", "3", "--max-restarts", "0"]
        self.job = Process(command=[*run, *self._script], folder=self.out / "job")
        self.joiner: Process | None = None
        self.killed, self.killed_at_s, self._kill_due_s = "", 0.0, 0.0

    def run(self) -> None:
        """Play the whole story. Raises DemoFailed."""
        print(f"$ {shlex.join(self.job.command)}", flush=True)
        self.job.start()
        while any(process.exit_code is None for process in self._processes()):
            self._step()
            self._check_time(time.time())
            time.sleep(POLL_S)
        self._step()
        for process in self._processes():
            if process.exit_code != 0:
                raise DemoFailed(f"{process.output}: exit status {process.exit_code}")
        if self.joiner is None:
            raise DemoFailed("the job was over before one more island could join")

    def _check_time(self, now_s: float) -> None:
        if now_s > self._deadline_s:
            raise DemoFailed("it takes too long: the deadline has passed")
        steps = [e.time_s for e in self.job.events if e.kind in {"started", "view", "round"}]
        if now_s - max(steps, default=self.job.began_s) > STALL_S:
            raise DemoFailed(f"it hangs: no view and no round for {STALL_S:.0f} s")

    def stop(self) -> None:
        for process in self._processes():
            process.stop()

    def _processes(self) -> list[Process]:
        return [self.job] if self.joiner is None else [self.job, self.joiner]

    def _step(self) -> None:
        for process in self._processes():
            new = process.read_events()
            if process is self.job:
                for event in new:
                    self._show(event)
        done = max(
            (event.fields["round"] for event in of_kind(self.job.events, "round")), default=0
        )
        if not self._kill_due_s and done >= self.rounds // 3:
            self._kill_due_s = time.time() + self._random.random() * self._round_s()
        if self._kill_due_s and not self.killed and time.time() >= self._kill_due_s:
            self._kill()
        if self.joiner is None and self.killed and done >= 2 * self.rounds // 3:
            self._join()

    def _done(self) -> int:
        rounds = of_kind(self.job.events, "round")
        return rounds[-1].fields["round"] if rounds else 0

    def _is_over(self) -> bool:
        """Whether the last round is done: the islands leave one by one, which is no news."""
        reports = of_kind(self.job.events, "report")
        return any(report.fields["round"] == self.rounds for report in reports)

    def _round_s(self) -> float:
        times = [event.time_s for event in of_kind(self.job.events, "round")]
        return statistics.median(b - a for a, b in pairwise(times))

    def _kill(self) -> None:
        pids = self.job.island_pids()
        self.killed = self._random.choice(sorted(pids))
        self.killed_at_s = time.time()
        os.kill(pids[self.killed], signal.SIGKILL)
        self._say(
            self.killed_at_s,
            f"*** SIGKILL to {self.killed} (process {pids[self.killed]}) in the middle of a round, "
            f"--seed {self.seed}",
        )

    def _join(self) -> None:
        address = of_kind(self.job.events, "listening")[0].fields["address"]
        run = ["atoll", "run", "--join", address, "--threads", "1", "--max-restarts", "0"]
        self.joiner = Process(command=[*run, *self._script], folder=self.out / "joiner")
        self.joiner.start()
        self._say(self.joiner.began_s, f"*** atoll run --join {address} {self._script[0]} ...")

    # --- what is printed ----------------------------------------------------------------------

    def _show(self, event: Event) -> None:
        match event.kind:
            case "view" if not self._is_over():
                members = ", ".join(event.fields.get("members", ["(members not known)"]))
                self._say(event.time_s, f"view {event.fields['epoch']}: {members}")
            case "report":
                number, loss = event.fields["round"], event.fields["validation_loss"]
                # A report repeats what its island has said before.
                if loss is not None and loss != self._losses.get(event.island):
                    self._losses[event.island] = loss
                    if number >= self._next_shown:
                        self._next_shown = number - number % self._show_every + self._show_every
                        self._say(event.time_s, self._round_line(number, loss))
            case "parity" | "state_lost":
                self._say(event.time_s, f"{event.kind}: {event.fields.get('message', '')}")

    def _round_line(self, number: int, loss: float) -> str:
        text = f"round {number:3}  validation loss {loss:.3f}"
        for event in of_kind(self.job.events, "round"):
            if event.fields["round"] == number and event.fields["loss"] is not None:
                text += f"  training {event.fields['loss']:.3f}"
                # Islands that leave after the last round take with them what they reported.
                if number < self.rounds:
                    rate = (event.fields["tokens_per_s"] or 0.0) / 1000
                    text += f"  {event.fields['islands']} islands  {rate:.1f}k tokens/s"
        return text

    def _say(self, time_s: float, text: str) -> None:
        print(f"{time_s - self.job.began_s:6.1f} s  {text}", flush=True)


def observed(demo: Demo) -> Run:
    """Return what the run has left behind."""
    # These take seconds to import: not while a user looks at an empty screen.
    import corpus
    from gpt import GPT, Config

    from atoll.data import journal

    assert demo.joiner is not None  # Demo.run() has ended well
    model = GPT(Config(block=BLOCK))
    return Run(
        rounds=demo.rounds,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        samples=len(corpus.Blocks(corpus.load(max_bytes=MAX_BYTES).train, BLOCK)),
        killed=demo.killed,
        killed_at_s=demo.killed_at_s,
        joiner_began_s=demo.joiner.began_s,
        events=demo.job.events,
        journals=journal.read(demo.job.folder) | journal.read(demo.joiner.folder),
        validation={
            number: loss
            for log in demo.out.rglob("island-*.log")
            for number, loss in validation(log.read_text(errors="replace")).items()
        },
    )


def interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that no process is left behind."""
    raise KeyboardInterrupt


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, interrupt)
    demo = Demo(args)
    try:
        demo.run()
    except DemoFailed as failed:
        print(f"FAILED: {failed}\n{_tail(demo.job.output)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        demo.stop()

    from demo_plot import plot

    run = observed(demo)
    summary = summarize(run)
    print(f"\n{table(run, summary)}")
    picture = args.out / "demo.png"
    plot(run, BLOCK, picture)
    print(f"  {'plot, logs':<18}{os.path.relpath(picture)}, {os.path.relpath(demo.out)}/")
    for failure in summary.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if summary.failures else 0


def _tail(path: Path, lines: int = 20) -> str:
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
