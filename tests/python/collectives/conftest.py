"""Islands for tests of collectives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from island_group import Form, Islands

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "control")]


@pytest.fixture(scope="module")
def islands() -> Iterator[Islands]:
    """Three of them, for all tests of a module."""
    from island_group import form_islands

    with ExitStack() as stack:
        yield form_islands(stack, 3)


@pytest.fixture
def form() -> Iterator[Form]:
    """Makes islands that a test may lose."""
    from island_group import form_islands

    with ExitStack() as stack:
        yield lambda count: form_islands(stack, count)
