"""Groups of processes on the hosts of a laboratory, one on each, that are asked in unison.

    with islands(lab) as group:
        group.wait_measured()
        answers = group.ask({"do": "all_reduce", "bytes": 1024, "iterations": 5, "warm_up": 1})

What goes wrong is a LabError of one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wan_lab import ROOT, Lab, LabError

ISLAND = Path(__file__).with_name("wan_island.py")
HIVEMIND = Path(__file__).with_name("wan_hivemind.py")
START_TIMEOUT_S = 120.0
MEASURE_TIMEOUT_S = 60.0
COORDINATOR_PORT = 7000
GLOO_PORT = 29500


class Group:
    """One process a host, ready to be asked."""

    def __init__(self, name: str, logs: Path, start: Callable[[int], subprocess.Popen[str]]):
        self.name = name
        self.processes: list[subprocess.Popen[str]] = []
        self._logs = logs
        self._start = start

    def start(self, hosts: int) -> None:
        """Starts them all, and waits until they have met."""
        self.processes = [self._start(host) for host in range(hosts)]
        self.answers(START_TIMEOUT_S, range(hosts))

    def restart(self, host: int) -> None:
        """Starts a host's process again, as a supervisor would; its first answer is "ready"."""
        self.processes[host] = self._start(host)

    def ask(
        self, what: Mapping[str, Any], timeout_s: float = 120.0, of: Sequence[int] | None = None
    ) -> list[Any]:
        """The answers of all, or of some, by host."""
        asked = range(len(self.processes)) if of is None else of
        self.tell(what, asked)
        return self.answers(timeout_s, asked)

    def tell(self, what: Mapping[str, Any], to: Sequence[int]) -> None:
        """Asks without waiting."""
        for host in to:
            stdin = self.processes[host].stdin
            assert stdin is not None
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(what) + "\n")
                stdin.flush()

    def answers(self, timeout_s: float, of: Sequence[int]) -> list[Any]:
        """What was told to them and not answered yet."""
        deadline_s = time.monotonic() + timeout_s
        return [self._answer(host, deadline_s) for host in of]

    def _answer(self, host: int, deadline_s: float) -> Any:
        stdout = self.processes[host].stdout
        assert stdout is not None
        left_s = max(0.0, deadline_s - time.monotonic())
        if not select.select([stdout], [], [], left_s)[0]:
            raise LabError(f"{self.name}: host {host} gave no answer in time")
        line = stdout.readline()
        if not line:
            raise LabError(f"{self.name}: host {host} has ended: {self.complaint(host)}")
        return json.loads(line)

    def has_answered(self, host: int) -> bool:
        return bool(select.select([self.processes[host].stdout], [], [], 0)[0])

    def complaint(self, host: int) -> str:
        """The last line that it wrote on standard error."""
        said = (self._logs / f"{host}.log").read_text(errors="replace").strip().splitlines()
        return said[-1] if said else "no error was printed"

    def wait_measured(self, epoch: int = 2) -> None:
        """Until all members have the view that carries what was measured of their links."""
        deadline_s = time.monotonic() + MEASURE_TIMEOUT_S
        while any(one["epoch"] < epoch for one in self.ask({"do": "state"})):
            if time.monotonic() > deadline_s:
                raise LabError(f"{self.name}: no view with measured links in time")
            time.sleep(0.2)


@contextlib.contextmanager
def islands(lab: Lab, **settings: str) -> Iterator[Group]:
    """Ours, with a coordinator on host 0. `settings`: ATOLL_* in lower case, for all islands."""
    address = f"{lab.address(0)}:{COORDINATOR_PORT}"
    command = [sys.executable, "-m", "atoll.coordinator", "--listen", address, "--job", "wan"]
    command += ["--insecure", "--min-islands", str(lab.hosts)]
    own = {f"ATOLL_{key.upper()}": value for key, value in settings.items()}
    environments = [
        {
            "ATOLL_COORDINATOR": address,
            "ATOLL_JOB": "wan",
            "ATOLL_ISLAND": f"island-{host}",
            "ATOLL_INSECURE": "1",  # the network is the test's own
            "ATOLL_BIND_HOST": lab.address(host),
            "ATOLL_ADVERTISE_HOST": lab.address(host),
            **own,
        }
        for host in range(lab.hosts)
    ]
    with tempfile.TemporaryDirectory(prefix="atoll-wan-") as folder:
        with (Path(folder) / "coordinator.log").open("w") as log:
            coordinator = lab.spawn(0, command, environment({}), stdout=log, stderr=log)
        try:
            with _group("atoll", lab, [["atoll"]] * lab.hosts, environments, folder) as group:
                group.ask({"do": "meet"}, START_TIMEOUT_S)
                yield group
        finally:
            coordinator.terminate()
            coordinator.wait()


@contextlib.contextmanager
def gloo(lab: Lab) -> Iterator[Group]:
    """torch.distributed's, which meets on host 0."""
    commands = [
        ["gloo", lab.address(0), str(GLOO_PORT), str(host), str(lab.hosts)]
        for host in range(lab.hosts)
    ]
    extra = {"GLOO_SOCKET_IFNAME": "wan0", "TP_SOCKET_IFNAME": "wan0"}
    with (
        tempfile.TemporaryDirectory(prefix="atoll-wan-") as folder,
        _group("gloo", lab, commands, [extra] * lab.hosts, folder) as group,
    ):
        yield group


@contextlib.contextmanager
def hivemind(lab: Lab, python: str) -> Iterator[Group]:
    """hivemind's averagers, which meet in the DHT of host 0. `python`: one that has the package."""
    commands = [[lab.address(host), str(lab.hosts)] for host in range(lab.hosts)]
    with (
        tempfile.TemporaryDirectory(prefix="atoll-wan-") as folder,
        _group("hivemind", lab, commands, [{}] * lab.hosts, folder, (python, HIVEMIND)) as group,
    ):
        peers = group.ask({"do": "address"}, of=[0])[0]
        group.ask({"do": "meet", "peers": peers}, of=range(1, lab.hosts))
        yield group


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's own, without what it says of other jobs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_")}
    return {**kept, "OMP_NUM_THREADS": "1", **extra}


@contextlib.contextmanager
def _group(
    name: str,
    lab: Lab,
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    folder: str,
    program: tuple[str, Path] = (sys.executable, ISLAND),
) -> Iterator[Group]:
    def start(host: int) -> subprocess.Popen[str]:
        with (Path(folder) / f"{host}.log").open("a") as log:
            return lab.spawn(
                host,
                [program[0], str(program[1]), *commands[host]],
                environment(environments[host]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=str(ROOT),
                start_new_session=True,  # with what it starts: hivemind's DHT outlives its parent
            )

    group = Group(name, Path(folder), start)
    try:
        group.start(lab.hosts)
        yield group
    finally:
        for process in group.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
