"""Cuts a process of one's own off from the network, without its help.

Each of its TCP sockets gets a socket filter that drops whatever arrives (SO_ATTACH_FILTER, a
program of one instruction: return 0), through a duplicate of the descriptor (pidfd_getfd, which the
kernel allows for what one may trace). Acknowledgements are dropped, too, so after a window of data
nothing leaves it any more either: to the others it is silent, as behind a broken line; nothing is
reset. Sockets that it opens meanwhile are found within POLL_S: a handshake may get through, as on a
line that is up for moments. Without the filters the connections go on where they were, if nobody
has given them up.

Kernels of lately (6.18 was seen to) let only a network administrator (CAP_NET_ADMIN) put a filter
on a TCP socket, even on one's own; others let everybody. `obstacle` says which it is here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct

from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.faults.own_processes import sockets_of

POLL_S = 0.01
_PIDFD_GETFD = 438  # the same on all architectures
_ATTACH_FILTER, _DETACH_FILTER = 26, 27
_BPF_RETURN_CONSTANT = 0x06


def obstacle() -> str:
    """Why nothing can be cut off here; empty: it can."""
    drop = _dropping()
    with socket.socket() as own:
        try:
            own.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, _program(drop))
        except OSError as error:
            return (
                f"this kernel lets only a network administrator do that ({error.strerror}); as "
                "root it works"
            )
        handle = os.pidfd_open(os.getpid())
        try:
            number = _duplicate(handle, own.fileno())
        finally:
            os.close(handle)
        if number < 0:
            return f"sockets of other processes cannot be had ({os.strerror(-number).lower()})"
        os.close(number)
    return ""


def _dropping() -> ctypes.Array[ctypes.c_char]:
    """A filter's one instruction: of what arrives, keep 0 bytes."""
    return ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN_CONSTANT, 0, 0, 0))


def _program(instructions: ctypes.Array[ctypes.c_char]) -> bytes:
    return struct.pack("HL", 1, ctypes.addressof(instructions))


def _duplicate(handle: int, descriptor: int) -> int:
    """A descriptor of ours for one of another process; below 0: the negative errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    copy = int(libc.syscall(_PIDFD_GETFD, handle, descriptor, 0))
    return copy if copy >= 0 else -ctypes.get_errno()


class Cut:
    """`refresh` at the beginning and every POLL_S, `mend` at the end."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError."""
        self._pid = pid
        self._handle = os.pidfd_open(pid)
        self._held: dict[int, socket.socket] = {}
        self._drop = _dropping()

    @property
    def sockets(self) -> int:
        """How many are cut."""
        return len(self._held)

    def refresh(self) -> None:
        """Cuts the sockets that are not yet. Raises LauncherError."""
        for descriptor, inode in sockets_of(self._pid).items():
            if inode in self._held:
                continue
            number = _duplicate(self._handle, descriptor)
            if number == -errno.EPERM:
                raise LauncherError(
                    "the kernel does not let us at the island's sockets (see sysctl "
                    "kernel.yama.ptrace_scope); leave cuts out: --faults kill,freeze"
                )
            if number < 0:
                continue  # closed by now
            copy = socket.socket(fileno=number)
            if copy.family not in (socket.AF_INET, socket.AF_INET6):
                copy.close()
                continue
            with contextlib.suppress(OSError):
                copy.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, _program(self._drop))
            self._held[inode] = copy

    def mend(self) -> None:
        """What arrives, arrives again."""
        for held in self._held.values():
            with contextlib.suppress(OSError):
                held.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
            held.close()
        self._held.clear()
        os.close(self._handle)
