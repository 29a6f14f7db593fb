"""What a process forked from one with an open session must not keep: the streams to coordinators.

A connection ends with its last descriptor. Were it kept by a DataLoader's worker, the coordinator
would not notice that the training process has died. (The engine's descriptors are closed by the
core, `csrc/atoll/net/owned_fds.cpp`; gRPC's can only be told by whom they lead to.)
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterable

Address = tuple[str, int]

_streams_to: set[Address] = set()
_lock = threading.Lock()
_hooked = False


def close_in_children(coordinators: Iterable[str]) -> None:
    """From now on, processes forked from this one close its connections to these HOST:PORTs."""
    global _hooked
    addresses = resolved(coordinators)
    with _lock:
        _streams_to.update(addresses)
        if not _hooked:
            os.register_at_fork(after_in_child=_in_child)
            _hooked = True


def resolved(addresses: Iterable[str]) -> frozenset[Address]:
    """The numeric addresses of HOST:PORTs; those that have none are left out."""
    found: set[Address] = set()
    for address in addresses:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError):
            places = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            found |= {(str(place[0]), int(place[1])) for *_, place in places}
    return frozenset(found)


def leading_to(addresses: Iterable[Address], descriptors: Iterable[int]) -> list[int]:
    """Those of this process's descriptors that are connected to one of the addresses."""
    wanted = frozenset(addresses)
    return [fd for fd in descriptors if _peer_of(fd) in wanted]


def _peer_of(fd: int) -> Address | None:
    try:
        with socket.socket(fileno=os.dup(fd)) as probe:
            if probe.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            host, port = probe.getpeername()[:2]
    except OSError:
        return None  # not a socket, not connected, or gone meanwhile
    return host.removeprefix("::ffff:"), port


def _in_child() -> None:
    descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    for fd in leading_to(_streams_to, descriptors):
        with contextlib.suppress(OSError):
            os.close(fd)
