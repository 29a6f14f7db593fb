"""What is compared: how a library's coordinator and its replicas are started.

Settings of TorchFT: `torchft` has its own defaults (a replica is dead after 5 s without a
heartbeat, everything else may take 60 s). `torchft-fast` has the shortest heartbeats with which
three replicas ran on two cores without being taken for dead, and the failure timeout of atoll.
`torchft-ddp` is `torchft` with gradients exchanged by its DistributedDataParallel instead of one
`Manager.allreduce`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PEERS_PYTHON = ROOT / ".venv-peers/bin/python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """worker: the script of a replica. failure_timeout_s: after which a silent replica is given
    up."""

    name: str
    python: str
    worker: str
    failure_timeout_s: float
    lighthouse: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_torchft(self) -> bool:
        return self.name.startswith("torchft")

    def coordinator(self, port: int, folder: Path) -> list[str]:
        if self.is_torchft:
            program = str(PEERS_PYTHON.with_name("torchft_lighthouse"))
            return [program, "--min_replicas", "1", "--bind", f"[::]:{port}", *self.lighthouse]
        store = f"sqlite:{folder / 'coordinator.sqlite'}"
        where = ["--listen", f"127.0.0.1:{port}", "--job", "peers", "--store", store]
        return [sys.executable, "-m", "atoll.coordinator", *where]

    def replica(self, name: str, port: int) -> dict[str, str]:
        """Its environment."""
        found = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        if self.is_torchft:
            address = f"http://127.0.0.1:{port}"
            return found | {"TORCHFT_LIGHTHOUSE": address, "PEERS_REPLICA": name}
        joins = {"ATOLL_COORDINATOR": f"127.0.0.1:{port}", "ATOLL_JOB": "peers"}
        return found | joins | {"ATOLL_ISLAND": name}


LIBRARIES = {
    library.name: library
    for library in (
        Library(
            name="atoll",
            python=sys.executable,
            worker="replica_atoll.py",
            failure_timeout_s=5.0,
        ),
        Library(
            name="torchft",
            python=str(PEERS_PYTHON),
            worker="replica_torchft.py",
            failure_timeout_s=60.0,
        ),
        Library(
            name="torchft-fast",
            python=str(PEERS_PYTHON),
            worker="replica_torchft.py",
            failure_timeout_s=5.0,
            lighthouse=(
                *("--heartbeat_timeout_ms", "100", "--join_timeout_ms", "100"),
                *("--quorum_tick_ms", "10"),
            ),
            environment={
                "PEERS_TIMEOUT_S": "5",
                "PEERS_HEARTBEAT_MS": "10",
                "TORCHFT_QUORUM_RETRIES": "20",
            },
        ),
        Library(
            name="torchft-ddp",
            python=str(PEERS_PYTHON),
            worker="replica_torchft.py",
            failure_timeout_s=60.0,
            environment={"PEERS_DDP": "1"},
        ),
    )
}
