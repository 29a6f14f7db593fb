"""Groups for tests of the backend: their members are threads of this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from thread_group import Form, Members

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def members() -> Iterator[Members]:
    """Three of them, for all tests of a module."""
    from thread_group import Members

    with Members(3) as three:
        yield three


@pytest.fixture
def form() -> Iterator[Form]:
    """Makes groups that a test may break."""
    from contextlib import ExitStack

    from thread_group import Members

    with ExitStack() as stack:
        yield lambda count: stack.enter_context(Members(count))
