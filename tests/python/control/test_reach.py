"""Islands that others cannot dial, in network namespaces: of one kind each, and two at a time.

    hub: the coordinator, and islands that everybody reaches; it forwards nothing
     |         |
    home0    home1    an island each, at an address that nobody else has a way to, as behind NAT

Needs root and ip; is skipped elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll_launcher.trust.certs import issue_island, make_authority

pytestmark = [pytest.mark.processes, pytest.mark.slow]

WORKER = Path(__file__).parents[1] / "processes" / "worker.py"
PATIENCE_S = 90.0
PORT = 7000


def hub_address(home: int) -> str:
    return f"10.78.{home}.254"


def home_address(home: int) -> str:
    """Where an island listens, and what it advertises: a private address, behind its router."""
    return f"192.168.{100 + home}.1"


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@contextlib.contextmanager
def places(homes: int) -> Iterator[tuple[str, list[str]]]:
    """The namespace of the hub, and those of homes."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and ip")
    stem = f"reach{os.getpid()}"
    hub, names = f"{stem}-hub", [f"{stem}-{home}" for home in range(homes)]
    made: list[str] = []
    try:
        try:
            for name in [hub, *names]:
                run("ip", "netns", "add", name)
                made.append(name)
                run("ip", "-n", name, "link", "set", "lo", "up")
            for home, name in enumerate(names):
                run("ip", "-n", hub, "link", "add", f"home{home}", "type", "veth", "peer", "way")
                run("ip", "-n", hub, "link", "set", "way", "netns", name)
                run("ip", "-n", hub, "addr", "add", f"{hub_address(home)}/24", "dev", f"home{home}")
                run("ip", "-n", hub, "link", "set", f"home{home}", "up")
                run("ip", "-n", name, "addr", "add", f"10.78.{home}.1/24", "dev", "way")
                run("ip", "-n", name, "addr", "add", f"{home_address(home)}/32", "dev", "lo")
                run("ip", "-n", name, "link", "set", "way", "up")
                run("ip", "-n", name, "route", "add", "default", "via", hub_address(home))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"{' '.join(error.cmd)}: {error.stderr.strip()}")
        yield hub, names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


class Job:
    """With certificates: a coordinator in the hub, and islands wherever they are started."""

    def __init__(self, folder: Path, hub: str, at_end: contextlib.ExitStack) -> None:
        self._folder, self._hub, self._at_end = folder, hub, at_end
        self._certs = folder / "certs"
        make_authority("reef", self._certs, days=1)
        self.islands: dict[str, subprocess.Popen[bytes]] = {}
        self.may_end: set[str] = set()
        self.dial_timeout_s = 1

    def _start(self, space: str, name: str, *words: str, **settings: str) -> None:
        environment = {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", space, sys.executable, *words],
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.islands[name] = process
        self._at_end.callback(process.wait)
        self._at_end.callback(process.kill)

    def coordinate(self, min_islands: int) -> None:
        self._start(
            *(self._hub, "coordinator", "-m", "atoll.coordinator", "--job", "reef"),
            *("--listen", f"0.0.0.0:{PORT}", "--advertise", f"{hub_address(0)}:{PORT}"),
            *("--min-islands", str(min_islands), "--tls", str(self._certs / "coordinator")),
            *("--metrics-port", "0"),
        )
        self.wait("the coordinator", lambda: "listening" in self.log("coordinator"))

    def start(self, name: str, space: str, home: int, bind: str, advertise: str) -> None:
        if not (self._certs / name).exists():
            issue_island(self._certs, name, None, days=1)
        self._start(
            *(space, name, str(WORKER), "--elements", "1000", "--epochs", "100000"),
            *("--step-s", "0.01"),
            ATOLL_COORDINATOR=f"{hub_address(home)}:{PORT}",
            ATOLL_JOB="reef",
            ATOLL_ISLAND=name,
            ATOLL_BIND_HOST=bind,
            ATOLL_ADVERTISE_HOST=advertise,
            ATOLL_TLS_DIR=str(self._certs / name),
            ATOLL_DIAL_TIMEOUT_S=str(self.dial_timeout_s),
            ATOLL_SHARED_MEMORY="0",
            OMP_NUM_THREADS="1",
        )

    def start_open(self, name: str) -> None:
        """In the hub, where everybody reaches it."""
        advertise = ",".join((hub_address(0), hub_address(1)))
        self.start(name, self._hub, 0, "0.0.0.0", advertise)

    def start_at_home(self, name: str, home: int, space: str) -> None:
        self.start(name, space, home, home_address(home), home_address(home))

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def status(self) -> dict[str, object]:
        command = ["ip", "netns", "exec", self._hub, sys.executable, "-m", "atoll_launcher"]
        command += ["status", "--json", "--tls", str(self._certs / "operator")]
        answer = subprocess.run(
            [*command, f"{hub_address(0)}:{PORT}"], capture_output=True, text=True, check=True
        )
        found = json.loads(answer.stdout)
        assert isinstance(found, dict)
        return found

    def trains(self, names: str) -> None:
        """Waits until the view is of just these, and three more of its rounds are over."""

        def formed() -> bool:
            views = re.findall(r"view \d+ \(\w+\): (.*)", self.log("coordinator"))
            return bool(views) and set(views[-1].split(", ")) == set(names)

        self.wait(f"a view of {names}", formed)
        begun = self.log("coordinator").count(" round ")
        self.wait("rounds", lambda: self.log("coordinator").count(" round ") >= begun + 3)
        assert formed()

    def wait(self, what: str, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not happened():
            ended = {n: p.poll() for n, p in self.islands.items() if n not in self.may_end}
            dead = {name: code for name, code in ended.items() if code not in (None, -9)}
            if time.monotonic() > end or dead:
                logs = "\n".join(f"--- {n}\n{self.log(n)[-3000:]}" for n in self.islands)
                raise AssertionError(f"no {what} in time; ended: {dead}\n{logs}")
            time.sleep(0.05)


def test_an_island_that_nobody_can_dial_trains_with_those_that_it_can(tmp_path: Path) -> None:
    with places(2) as (hub, homes), contextlib.ExitStack() as at_end:
        job = Job(tmp_path, hub, at_end)
        job.coordinate(min_islands=1)
        job.start_at_home("b", 0, homes[0])
        job.trains("b")
        job.start_open("a")  # younger: it dials b in vain, so b dials it
        job.trains("ab")
        assert job.status()["relayed"] == []


def test_two_that_nobody_can_dial_train_through_a_third(tmp_path: Path) -> None:
    with places(2) as (hub, homes), contextlib.ExitStack() as at_end:
        job = Job(tmp_path, hub, at_end)
        job.coordinate(min_islands=2)
        job.start_open("a")
        job.start_at_home("b", 0, homes[0])
        job.trains("ab")
        job.start_at_home("d", 1, homes[1])
        job.trains("abd")
        assert job.status()["relayed"] == [{"one": "b", "other": "d", "relay": "a"}]
        assert "d reaches b through a" in job.log("coordinator")
        job.start_open("c")
        job.trains("abcd")
        job.islands["a"].kill()  # c takes its place
        job.trains("bcd")
        assert job.status()["relayed"] == [{"one": "b", "other": "d", "relay": "c"}]
        job.may_end = {"d"}
        job.islands["c"].kill()  # nobody can
        job.trains("b")
        assert job.islands["d"].wait(PATIENCE_S) != 0
        assert "no link between it and b" in job.log("d")


@pytest.mark.skipif(
    "REACH_TESTS" not in os.environ, reason="make test-reach runs it: half a minute"
)
def test_two_members_whose_path_is_cut_come_together_through_a_third(tmp_path: Path) -> None:
    """The one that is put out is back before anybody has dialled in vain."""

    def forwarding(wanted: bool) -> None:
        run("ip", "netns", "exec", hub, "sysctl", "-qw", f"net.ipv4.ip_forward={int(wanted)}")

    with places(2) as (hub, homes), contextlib.ExitStack() as at_end:
        for home in range(2):
            route = (f"{home_address(home)}/32", "via", f"10.78.{home}.1")
            run("ip", "-n", hub, "route", "add", *route)
        forwarding(True)
        job = Job(tmp_path, hub, at_end)
        job.dial_timeout_s = 1000
        job.coordinate(min_islands=2)
        job.start_open("a")
        job.start_at_home("b", 0, homes[0])
        job.trains("ab")
        job.start_at_home("d", 1, homes[1])
        job.trains("abd")
        assert job.status()["relayed"] == []
        job.may_end = {"d"}
        forwarding(False)
        job.trains("ab")
        assert job.islands["d"].wait(PATIENCE_S) != 0
        assert "no link between it and b" in job.log("d")
        job.start_at_home("d", 1, homes[1])  # as a launcher does
        job.trains("abd")
        assert job.status()["relayed"] == [{"one": "b", "other": "d", "relay": "a"}]
