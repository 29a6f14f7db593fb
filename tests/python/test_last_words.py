"""A script whose island is out of the job ends in one line and a code; any other error as ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import atexit
from atoll import errors
from atoll.last_words import end_in_one_line
end_in_one_line()
end_in_one_line()
atexit.register(print, "cleaned up")
def loop():
    raise errors.{error}
loop()
"""


def ended(error: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", SCRIPT.format(error=error)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ("Drained('left: disk full')", 0, "left: disk full"),
        ("JobStopped('the job was stopped')", 1, "the job was stopped"),
        ("Expelled('silent', 'unheard')", 1, "expelled from the job (silent): unheard"),
        ("Expelled('revoked', 'void')", 3, "expelled from the job (revoked): void"),
        ("Expelled('killed', 'ordered')", 3, "expelled from the job (killed): ordered"),
        ("CannotJoin('nobody answers')", 1, "nobody answers"),
        ("CannotJoin('expired', final=True)", 3, "expired"),
    ],
)
def test_one_line_and_a_code(error: str, code: int, text: str) -> None:
    assert ended(error) == (code, "cleaned up\n", f"atoll: {text}\n")


@pytest.mark.processes
@pytest.mark.parametrize("error", ["SessionClosed('after close')", "MismatchError('sizes')"])
def test_what_is_the_programs_own_has_its_traceback(error: str) -> None:
    code, out, err = ended(error)
    assert (code, out) == (1, "cleaned up\n")
    assert err.startswith("Traceback")
    assert "in loop" in err
