"""A laboratory: the emulator's hosts, processes in them, and changes of the network while they run.

    with Lab.start(load("transatlantic")) as lab:
        process = lab.spawn(0, [sys.executable, "island.py"], env)
        lab.tell("link 0 1 rate 50")
        ...
        print(lab.report())

Needs root, /dev/net/tun and the emulator (`make build-wan/wan_emulator`); `why_not()` says what is
missing. Everything goes with the `with`: processes, namespaces, the control socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from wan_profile import Profile

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 10.0


class LabError(RuntimeError):
    """The machine or the emulator does not do what a laboratory needs; one line says what."""


def emulator() -> Path | None:
    """The newest emulator that was built in this checkout."""
    built = [ROOT / folder / "wan_emulator" for folder in ("build-wan", "build-native")]
    there = [path for path in built if path.is_file()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


def why_not() -> str | None:
    """What this machine lacks for a laboratory; None: nothing."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    if shutil.which("nsenter") is None:
        return "needs nsenter (Debian: util-linux)"
    if emulator() is None:
        return "needs the emulator: make build-wan/wan_emulator"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the emulator saw since the last mark."""

    packets: int
    late_p50_us: int
    late_p99_us: int
    late_most_us: int
    is_void: bool
    hosts: tuple[dict[str, int], ...]

    def dropped(self, why: str) -> int:
        """Packets of all hosts; `why`: full, lost or cut."""
        return sum(host[f"dropped_{why}"] for host in self.hosts)


class Lab:
    """A running emulator. Its methods raise LabError when it is gone or refuses."""

    def __init__(self, name: str, hosts: int, process: subprocess.Popen[str], control: Path):
        self.name = name
        self.hosts = hosts
        self._process = process
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        self._socket.connect(str(control))
        self._lines: IO[str] = self._socket.makefile("rw")
        self._spawned: list[subprocess.Popen[str]] = []

    @staticmethod
    @contextlib.contextmanager
    def start(
        profile: Profile,
        *,
        mtu: int = 1500,
        congestion: str | None = None,
        offload: bool = True,
        seed: int = 1,
    ) -> Iterator[Lab]:
        """The profile's hosts and links. `congestion`: of the hosts' TCP; None: the machine's."""
        if (reason := why_not()) is not None:
            raise LabError(reason)
        name = f"wan{os.getpid()}"
        with tempfile.TemporaryDirectory(prefix="atoll-wan-") as folder:
            control = Path(folder) / "control"
            command = [str(emulator()), "--name", name, "--hosts", str(len(profile.hosts))]
            command += ["--control", str(control), "--mtu", str(mtu), "--seed", str(seed)]
            command += ["--offload", "on" if offload else "off"]
            command += ["--congestion", congestion] if congestion else []
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            try:
                _wait_until_ready(process)
                lab = Lab(name, len(profile.hosts), process, control)
                try:
                    for line in profile.commands():
                        lab.tell(line)
                    yield lab
                finally:
                    lab._end_spawned()
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=START_TIMEOUT_S)

    def tell(self, line: str) -> str:
        """Gives the emulator a command (emulator/control.h) and returns its answer."""
        try:
            self._lines.write(line + "\n")
            self._lines.flush()
            answer = self._lines.readline().strip()
        except OSError as error:
            raise LabError(f"the emulator does not answer: {error}") from error
        if not answer:
            raise LabError("the emulator is gone")
        if answer.startswith("error: "):
            raise LabError(f"the emulator refuses '{line}': {answer.removeprefix('error: ')}")
        return answer

    def mark(self) -> None:
        """What is counted from here on is in the next report."""
        self.tell("mark")

    def report(self) -> Report:
        """Of all since the last mark, or the start."""
        said: dict[str, Any] = json.loads(self.tell("report"))
        return Report(is_void=said.pop("void"), hosts=tuple(said.pop("hosts")), **said)

    def address(self, host: int) -> str:
        """Under which the other hosts reach it."""
        return f"10.77.0.{host + 1}"

    def spawn(
        self, host: int, command: Sequence[str], environment: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[str]:
        """Starts a process on a host; it is killed with the laboratory."""
        inside = ["nsenter", f"--net=/run/netns/{self.name}-{host}", *command]
        process = subprocess.Popen(inside, env=dict(environment), text=True, **options)
        self._spawned.append(process)
        return process

    def _end_spawned(self) -> None:
        for process in self._spawned:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    if select.select([process.stdout], [], [], START_TIMEOUT_S)[0] and process.stdout.readline():
        return
    process.kill()
    said = process.stderr.read().strip().splitlines()
    raise LabError(said[-1] if said else "the emulator did not start in time")
