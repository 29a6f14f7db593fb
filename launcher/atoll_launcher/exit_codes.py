"""What `atoll` exits with. docs/launcher.md lists the same."""

from __future__ import annotations

OK = 0
USAGE = 2
CANNOT_JOIN = 3
BELOW_MINIMUM = 4
WORKER_FAILED = 5
DAMAGED = 6


class LauncherError(Exception):
    """The command cannot go on: one line that says what to do, and the exit code."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code
