"""How a script ends whose island is out of the job: one line and an exit code, not a traceback.

The loop of a program need not know that its island can be drained, killed or left behind: what its
next collective raises goes up to the top, where this takes the place of the traceback. Whoever
catches the errors has them. docs/launcher.md, "Exit codes", has the same table.
"""

from __future__ import annotations

import sys
from types import TracebackType

from atoll.errors import CannotJoin, Drained, Expelled, JobStopped

LEFT = 0
NOT_WANTED = 3
"""It is not to be started again: revoked, killed, or refused for its certificate."""
OUT = 1
"""As after any other error; started again, it may come back."""


def exit_code(error: BaseException) -> int | None:
    """What a script ends with that lets this error through; None: as Python has it."""
    match error:
        case Drained():
            return LEFT
        case Expelled() | CannotJoin():
            return NOT_WANTED if error.final else OUT
        case JobStopped():
            return OUT
        case _:
            return None


def end_in_one_line() -> None:
    """From now on, in this process: a script that ends by such an error says so in one line."""
    if not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook()


class _Hook:
    def __init__(self) -> None:
        self._before = sys.excepthook

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        code = exit_code(error)
        if code is None or hasattr(sys, "ps1"):  # who types wants to go on
            self._before(kind, error, trace)
            return
        sys.stderr.write(f"atoll: {error}\n")
        # What an exception hook raises decides how the interpreter ends.
        raise SystemExit(code)
