"""A command of atoll at the other end of a connection: it ends when the connection does.

    python -m atoll_launcher.remote.tied run --join ... < a pipe

The first line of standard input is a JSON object, the environment to add. The line `leave` becomes
SIGTERM; the end of standard input SIGINT, and SIGKILL to all if that does not help. The exit code
is the command's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

from atoll_launcher.islands import bootstrap

PATIENCE_S = 15.0
"""From SIGINT to SIGKILL: a launcher needs some seconds to end its islands."""


def main(arguments: list[str]) -> int:
    """Run a command; return its exit code."""
    added = json.loads(sys.stdin.readline() or "{}")
    child = subprocess.Popen(
        # The bare interpreter ties the command's life to this process's.
        [
            sys.executable, "-I", "-S", bootstrap.__file__, str(os.getpid()),
            "-m", "atoll_launcher", *arguments,
        ],
        env={**os.environ, **added, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    threading.Thread(target=_listen, args=(child,), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _listen(child: subprocess.Popen[bytes]) -> None:
    for line in sys.stdin:
        if line.strip() == "leave":
            _signal(child, signal.SIGTERM)
    _signal(child, signal.SIGINT)
    try:
        child.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        _signal(child, signal.SIGKILL)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
