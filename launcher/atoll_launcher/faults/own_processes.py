"""Which process of this machine, and of this user, a peer is: the one that listens where it says.

Linux, without any privilege: /proc/net/tcp names each listening socket's owner and inode, and
/proc/PID/fd the processes that hold it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.pb import control_pb2 as pb

LISTENING = "0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A peer and its process."""

    island: str
    shard: int
    pid: int

    @property
    def label(self) -> str:
        return self.island if self.shard == 0 else f"{self.island}.{self.shard}"


def owned(peers: Sequence[pb.PeerStatus]) -> tuple[list[Owned], list[str]]:
    """The peers that are processes of this user here, by island and shard; and the islands of
    those that are somebody else's. A peer of which nothing listens here any more has just died, and
    is neither."""
    listeners = listening()
    own = {port: inode for port, (inode, uid) in listeners.items() if uid == os.getuid()}
    holders = _holders(set(own.values()))
    found, others = [], set()
    for peer in sorted(peers, key=lambda peer: (peer.info.island, peer.info.shard)):
        local = [e.port for e in peer.info.endpoints if is_local(e.host)]
        pids = [holders[own[port]] for port in local if own.get(port) in holders]
        if pids:
            found.append(Owned(island=peer.info.island, shard=peer.info.shard, pid=pids[0]))
        elif not local or any(port in listeners and port not in own for port in local):
            others.add(peer.info.island)
    return found, sorted(others)


def is_local(host: str) -> bool:
    """Whether an address is one of this machine's."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), 0, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def listening() -> dict[int, tuple[int, int]]:
    """By port: the inode of the socket that listens there, and its owner's user id."""
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING:
                port = int(fields[1].rpartition(":")[2], 16)
                found[port] = (int(fields[9]), int(fields[7]))
    return found


def sockets_of(pid: int) -> dict[int, int]:
    """By descriptor: the inode of each socket that a process holds; empty when it is gone, or not
    ours to look at."""
    found = {}
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                kind, _, rest = os.readlink(entry).partition(":[")
            except OSError:
                continue
            if kind == "socket":
                found[int(entry.name)] = int(rest.rstrip("]"))
    except OSError:
        pass
    return found


def _holders(inodes: set[int]) -> dict[int, int]:
    """By inode: the process that holds the socket. Of several, a parent and what it forked, the one
    that was there first, which has the lowest start time."""
    found: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        for inode in set(sockets_of(pid).values()) & inodes:
            known = (_started(pid), pid)
            found[inode] = min(known, found.get(inode, known))
    return {inode: pid for inode, (_, pid) in found.items()}


def _started(pid: int) -> int:
    """Clock ticks since the machine was started; proc(5), field 22."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 1 << 62
