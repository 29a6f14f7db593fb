"""How long a change of view keeps ops from starting, as an island measures it."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.control import engine_driver
from atoll.control.engine_driver import EngineDriver
from atoll.membership.messages import ChangeKind, View
from atoll.membership.peer_events import FenceEngine, InstallEngine


class Engine:
    def fence(self, *arguments: Any) -> None:
        pass

    def install(self, *arguments: Any, **more: Any) -> None:
        pass


def test_from_the_first_fence_to_the_next_view(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 10.0
    monkeypatch.setattr(engine_driver.time, "monotonic", lambda: now_s)
    seen: list[tuple[str, float]] = []
    engine: Any = Engine()
    driver = EngineDriver(
        engine,
        on_event=lambda event: None,
        on_op_ended=lambda op: None,
        on_fence_over=lambda kind, seconds: seen.append((kind, seconds)),
    )

    def install(kind: ChangeKind) -> None:
        driver.do(InstallEngine(view=View(epoch=1), starts={}, kind=kind, topology=b""))

    install(ChangeKind.DRAIN)  # a joiner's first view: nothing of its had to wait
    assert seen == []
    driver.do(FenceEngine(attempt=1, kind=ChangeKind.DRAIN))
    now_s = 10.25
    driver.do(FenceEngine(attempt=2, kind=ChangeKind.ABORT))  # supersedes it
    now_s = 10.5
    install(ChangeKind.ABORT)
    assert seen == [("abort", 0.5)]
