"""Ports for servers that a test starts later."""

from __future__ import annotations

import contextlib
import os
import random
import socket

BELOW = 32_768
"""From here on the kernel takes ports for outgoing connections, of other tests, too."""

_random = random.Random(os.getpid())


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no connection takes by itself."""
    while True:
        port = _random.randrange(20_000, BELOW)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
