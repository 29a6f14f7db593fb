"""Real coordinators of one job, in processes of their own, and a real etcd for them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc
from ports import free_port

PATIENCE_S = 90.0


class Etcd:
    """One or more members, whose data outlive their processes."""

    def __init__(self, folder: Path, members: int = 1, tls: Sequence[str | Path] = ()) -> None:
        """`tls`: etcd's own options for its clients' connections."""
        self._folder = folder
        self._tls = tuple(map(str, tls))
        self._ports = [(free_port(), free_port()) for _ in range(members)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * members
        self.start()

    @staticmethod
    def installed() -> bool:
        return shutil.which("etcd") is not None

    @property
    def addresses(self) -> str:
        return ",".join(f"127.0.0.1:{client}" for client, _ in self._ports)

    def start(self) -> None:
        """All that do not run. Returns when they listen, which they do when a majority runs."""
        missing = [n for n, process in enumerate(self._processes) if process is None]
        for number in missing:
            self._launch(number)
        for number in missing:
            self._wait(number)

    def start_member(self, number: int) -> None:
        self._launch(number)
        self._wait(number)

    def kill(self) -> None:
        for number in range(len(self._ports)):
            self.kill_member(number)

    def kill_member(self, number: int) -> None:
        process, self._processes[number] = self._processes[number], None
        if process is not None:
            process.kill()
            process.wait()

    def signal_member(self, number: int, how: signal.Signals) -> None:
        process = self._processes[number]
        assert process is not None
        process.send_signal(how)

    def _launch(self, number: int) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports[number])
        client = client.replace("http:", "https:" if self._tls else "http:")
        members = [f"m{n}=http://127.0.0.1:{peer}" for n, (_, peer) in enumerate(self._ports)]
        command = [
            *("etcd", "--name", f"m{number}", "--data-dir", str(self._folder / f"etcd-{number}")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", ",".join(members), *self._tls),
        ]
        with (self._folder / f"etcd-{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(command, stdout=log, stderr=log)

    def _wait(self, number: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            process = self._processes[number]
            if process is None or process.poll() is not None:
                raise RuntimeError((self._folder / f"etcd-{number}.log").read_text()[-2000:])
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._ports[number][0])) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError("etcd does not listen")


class Cluster:
    """`count` coordinators of the job `reef` with one store; each keeps its port and its log."""

    def __init__(self, folder: Path, store: str, *, count: int, min_islands: int) -> None:
        self._folder, self._store, self._min_islands = folder, store, min_islands
        self.ports = [free_port() for _ in range(count)]
        self._metrics = [free_port() for _ in range(count)]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count

    @property
    def addresses(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self, number: int) -> None:
        """Returns when it listens."""
        began = len(self.log(number))
        with self._log(number).open("ab") as log:
            self.processes[number] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "atoll.coordinator", "--job", "reef"),
                    *("--listen", f"127.0.0.1:{self.ports[number]}", "--store", self._store),
                    *("--min-islands", str(self._min_islands)),
                    *("--metrics-port", str(self._metrics[number])),
                ],
                stderr=log,
            )
        self.wait(lambda: "listening" in self.log(number)[began:], f"{number} to listen")

    def start_all(self) -> None:
        for number in range(len(self.ports)):
            self.start(number)

    def kill(self, number: int) -> None:
        process, self.processes[number] = self.processes[number], None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self, number: int, how: signal.Signals) -> None:
        """SIGSTOP and SIGCONT."""
        process = self.processes[number]
        assert process is not None
        process.send_signal(how)

    def close(self) -> None:
        for number in range(len(self.ports)):
            self.kill(number)

    def metrics(self, number: int) -> str:
        return f"http://127.0.0.1:{self._metrics[number]}/metrics"

    def _log(self, number: int) -> Path:
        return self._folder / f"coordinator-{number}.log"

    def log(self, number: int) -> str:
        path = self._log(number)
        return path.read_text(errors="replace") if path.exists() else ""

    def status(self, number: int) -> pb.StatusReply | None:
        with grpc.insecure_channel(f"127.0.0.1:{self.ports[number]}") as channel:
            stub = control_pb2_grpc.CoordinatorStub(channel)
            try:
                return stub.Status(pb.StatusRequest(), timeout=1.0)  # type: ignore[no-any-return]
            except grpc.RpcError:
                return None

    def leader(self) -> int | None:
        """Who says of itself that it leads."""
        for number, process in enumerate(self.processes):
            if process is not None:
                status = self.status(number)
                if status is not None and not status.standby:
                    return number
        return None

    def wait_leader(self, *, other_than: int | None = None) -> int:
        found: list[int] = []

        def found_one() -> bool:
            leader = self.leader()
            if leader is not None and leader != other_than:
                found.append(leader)
            return bool(found)

        self.wait(found_one, "a leader")
        return found[0]

    def wait(self, happened: object, what: str) -> None:
        assert callable(happened)
        end = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")
            time.sleep(0.01)
