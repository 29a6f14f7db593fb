"""Several donors behind narrow uplinks share the work (make bench-uplinks says what it gains)."""

from __future__ import annotations

import pytest
from uplinks import fetch

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def test_three_donors_give_about_a_third_each() -> None:
    _, shares = fetch(donors=3, mib=6)
    assert len(shares) == 3
    assert min(shares) >= 20
    assert max(shares) <= 47
