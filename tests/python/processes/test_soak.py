"""A minute of the soak: islands come and are killed, and nothing may break."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from soak import run


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_a_minute_of_churn(tmp_path: Path) -> None:
    result = asyncio.run(run(1.0, 5, tmp_path, quiet=True))
    assert result.problems == []
    assert result.killed >= 3
    assert result.compared > result.ops > 100
