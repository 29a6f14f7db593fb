"""Islands for tests of methods."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from island_group import Form

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "collectives"), str(_HERE.parent / "control")]


@pytest.fixture
def form() -> Iterator[Form]:
    """Makes islands that a test may lose."""
    from island_group import form_islands

    with ExitStack() as stack:
        yield lambda count: form_islands(stack, count)
