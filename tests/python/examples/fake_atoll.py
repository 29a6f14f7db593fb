"""Plays `atoll run` for the demo: the same files and processes, no training. A round is 50 ms.

FAKE_ATOLL says what goes wrong: hang (no round after the kill), fail (exit status 5).
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

SHARE = 1_600
words = sys.argv[1:]


def option(name: str) -> str:
    return words[words.index(name) + 1]


class Record:
    """The events file and the journals of one launcher."""

    def __init__(self) -> None:
        self.folder = Path(option("--log-dir"))
        self._events: TextIO = Path(option("--events")).open("w", buffering=1)  # noqa: SIM115
        self.islands: dict[str, subprocess.Popen[bytes]] = {}

    def event(self, kind: str, island: str = "", **fields: Any) -> None:
        line = {"time": time.time(), "kind": kind, "island": island, **fields}
        self._events.write(json.dumps(line) + "\n")

    def journal(self, island: str, line: dict[str, Any]) -> None:
        with (self.folder / f"ledger-{island}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def start(self, island: str) -> None:
        self.islands[island] = subprocess.Popen(["sleep", "60"])
        self.event("started", island, pid=self.islands[island].pid)

    def reap(self) -> list[str]:
        """The islands that died since the last call."""
        dead = [name for name, process in self.islands.items() if process.poll() is not None]
        for name in dead:
            self.event("exited", name, pid=self.islands.pop(name).pid, signal=9)
        return dead

    def close(self) -> None:
        for process in self.islands.values():
            process.kill()
            process.wait()


def host(record: Record, rounds: int) -> None:
    """The launcher of the job: everything but the joiner's process."""
    record.event("listening", address=str(record.folder))
    samples = int(option("--max-bytes")) // 65
    members = [f"island-{number}" for number in range(3)]
    for name in members:
        record.start(name)
    epoch, position, data_epoch, sent = 1, 0, 0, 0
    record.event("view", epoch=epoch, members=members)
    for number in range(rounds + 1):
        joining = record.folder / "joining"
        gone = record.reap()
        if gone and os.environ.get("FAKE_ATOLL") == "hang":
            time.sleep(60)
        if gone or joining.exists():
            epoch += 1
            if joining.exists():
                joining.rename(record.folder / "joined")
                members = [*members, "island-3"]
                record.event("joined", "island-3", peer_id="island-3", epoch=epoch)
            members = [name for name in members if name not in gone]
            record.event("view", epoch=epoch, members=members)
        if number:
            time.sleep(0.05)
            used: dict[str, list[list[int]]] = {}
            for name in members:
                end = min(position + SHARE, samples)
                used[name] = [[position, end]] if end > position else []
                position = end
            line = {"time": time.time(), "round": number, "epoch": epoch, "used": used}
            for name in members:
                record.journal(name, {**line, "data_epoch": data_epoch, "digest": f"d{number}"})
            if position == samples:
                position, data_epoch = 0, data_epoch + 1
            sent += 1_904_000
            shown = {"islands": len(members), "tokens_per_s": 2e4, "loss": 5 - number / 100}
            record.event("round", round=number, epoch=epoch, **shown)
        fields = {"round": number, "epoch": epoch, "sent_bytes": sent}
        loss = 5 - number / 100
        record.event("report", members[0], validation_loss=loss, **fields)
        with (record.folder / f"{members[0]}.log").open("a") as log:
            log.write(f"round {number}: validation loss {loss:.3f}\n")
    (record.folder / "over").touch()


def join(record: Record) -> None:
    """The launcher of the joiner, whose journal the other one writes."""
    other = Path(option("--join"))
    record.start("island-3")
    time.sleep(0.2)
    (other / "joining").touch()
    while not (other / "over").exists():
        time.sleep(0.02)


if os.environ.get("FAKE_ATOLL") == "fail":
    sys.exit("atoll: something is wrong")
with contextlib.closing(Record()) as mine:
    if "--join" in words:
        join(mine)
    else:
        host(mine, int(option("--rounds")))
