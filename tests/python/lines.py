"""Islands' lines: network namespaces behind rate-limited veth pairs and bridges.

Needs root, ip and tc with the `tbf` discipline; tests are skipped elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

HUB_ADDRESS = "10.77.0.254"
"""Of the hub's namespace, for a coordinator."""


def address_of(rank: int) -> str:
    return f"10.77.0.{rank + 1}"


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@dataclass(frozen=True, kw_only=True)
class Lines:
    """By rank, each island's line in Mbit/s, both ways, and its site; the line between sites."""

    mbit: tuple[int, ...]
    sites: tuple[int, ...]
    between_mbit: int = 0

    def bytes_per_s(self, a: int, b: int) -> float:
        """Of the slowest line from one to the other."""
        lines = [self.mbit[a], self.mbit[b]]
        if self.sites[a] != self.sites[b]:
            lines.append(self.between_mbit)
        return min(lines) * 1e6 / 8


def shape(mbit: int) -> list[str]:
    return ["root", "tbf", "rate", f"{mbit}mbit", "burst", "16kb", "latency", "100ms"]


def lay(lines: Lines, hub: str, names: list[str]) -> None:
    """A bridge for each site, all in one namespace; islands in namespaces of their own."""
    for site in set(lines.sites):
        run("ip", "-n", hub, "link", "add", f"bridge{site}", "type", "bridge")
        run("ip", "-n", hub, "link", "set", f"bridge{site}", "up")
    run("ip", "-n", hub, "addr", "add", f"{HUB_ADDRESS}/24", "dev", f"bridge{min(lines.sites)}")
    if lines.between_mbit:
        run("ip", "-n", hub, "link", "add", "trunk0", "type", "veth", "peer", "trunk1")
        for site in (0, 1):
            run("ip", "-n", hub, "link", "set", f"trunk{site}", "master", f"bridge{site}", "up")
            trunk = shape(lines.between_mbit)
            run("tc", "-n", hub, "qdisc", "add", "dev", f"trunk{site}", *trunk)
    for rank, (name, mbit, site) in enumerate(zip(names, lines.mbit, lines.sites, strict=True)):
        port = f"port{rank}"
        run("ip", "-n", hub, "link", "add", port, "type", "veth", "peer", "line")
        run("ip", "-n", hub, "link", "set", "line", "netns", name)
        run("ip", "-n", hub, "link", "set", port, "master", f"bridge{site}", "up")
        run("ip", "-n", name, "addr", "add", f"{address_of(rank)}/24", "dev", "line")
        run("ip", "-n", name, "link", "set", "line", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("tc", "-n", name, "qdisc", "add", "dev", "line", *shape(mbit))
        run("tc", "-n", hub, "qdisc", "add", "dev", port, *shape(mbit))


@contextlib.contextmanager
def spaces(lines: Lines) -> Iterator[list[str]]:
    """The islands' namespaces, and the hub's as the last."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("needs root, ip and tc")
    stem = f"atoll{os.getpid()}"
    hub = f"{stem}-hub"
    names = [f"{stem}-{rank}" for rank in range(len(lines.mbit))]
    made: list[str] = []
    try:
        try:
            for name in [hub, *names]:
                run("ip", "netns", "add", name)
                made.append(name)
            lay(lines, hub, names)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"{' '.join(error.cmd)}: {error.stderr.strip()}")
        yield [*names, hub]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)
