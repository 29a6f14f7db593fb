"""Several sessions in this process, with a real coordinator, for tests of collectives."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from harness import Coordinator

import atoll
from atoll.session import Session

PATIENCE_S = 60.0


class Islands:
    """Sessions by rank."""

    def __init__(self, sessions: list[Session]) -> None:
        self.sessions = sessions

    def __len__(self) -> int:
        return len(self.sessions)

    def each(self, part: Callable[[Session, int], Any]) -> list[Any]:
        """Runs `part(session, rank)` on all islands at once; returns their results by rank."""
        with ThreadPoolExecutor(len(self.sessions)) as pool:
            futures = [pool.submit(part, each, rank) for rank, each in enumerate(self.sessions)]
            return [future.result(PATIENCE_S) for future in futures]

    def start(self, part: Callable[[Session, int], Any]) -> list[Any]:
        """Calls `part(session, rank)` of one island after the other: for calls that do not wait."""
        return [part(each, rank) for rank, each in enumerate(self.sessions)]

    def fail(self, part: Callable[[Session, int], Any]) -> list[atoll.errors.AtollError]:
        """The errors of ops that must fail on all islands."""

        def caught(session: Session, rank: int) -> atoll.errors.AtollError:
            with pytest.raises(atoll.errors.AtollError) as raised:
                part(session, rank)
            return raised.value

        return self.each(caught)

    def lose(self, rank: int) -> Session:
        """One island is gone without a word."""
        lost = self.sessions.pop(rank)
        lost._client.engine.close()
        lost._client.close()
        return lost


Form = Callable[[int], Islands]


def form_islands(stack: ExitStack, count: int) -> Islands:
    coordinator = stack.enter_context(Coordinator(min_islands=count))
    sessions = []
    for name in "abcdefgh"[:count]:
        session = atoll.join(
            {
                "coordinator": f"127.0.0.1:{coordinator.port}",
                "job": "reef",
                "island": name,
                "metrics_port": 0,
            }
        )
        stack.callback(session.close)
        sessions.append(session)
    for each in sessions:
        each._client.ready()
    for each in sessions:
        each._client.wait(lambda now: len(now.view.members) == count, PATIENCE_S)
    return Islands(sorted(sessions, key=lambda each: each.rank or 0))
