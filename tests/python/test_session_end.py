"""How a session leaves: a script that raises has not finished."""

from __future__ import annotations

import contextlib

import pytest

import atoll
from atoll.membership.messages import Departure


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, Departure.FINISHED),
        (SystemExit(0), Departure.FINISHED),
        (SystemExit(3), Departure.CRASHED),
        (RuntimeError("boom"), Departure.CRASHED),
        (KeyboardInterrupt(), Departure.CRASHED),
    ],
)
def test_the_reason_follows_the_error(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | None, reason: Departure
) -> None:
    monkeypatch.delenv("ATOLL_COORDINATOR", raising=False)
    session = atoll.join({"metrics_port": -1})
    client, said = session._client, []

    def leave(reason: Departure, timeout_s: float) -> bool:
        said.append(reason)
        return True

    monkeypatch.setattr(client, "leave", leave)
    with contextlib.suppress(BaseException), session:
        if error is not None:
            raise error
    session.close()
    assert said == [reason]
