"""A supervisor on the running loop: events in, actions out, and its deadlines as events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from atoll_launcher.islands import supervisor_events as sv
from atoll_launcher.islands.supervisor import Supervisor


class Feed:
    """Called with each event. `act` carries out what the supervisor decides."""

    def __init__(self, supervisor: Supervisor, act: Callable[[sv.Action], None]) -> None:
        self._supervisor, self._act = supervisor, act
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, event: sv.Event) -> None:
        for action in self._supervisor.handle(event, self._loop.time()):
            self._act(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._supervisor.deadline_s()
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self, sv.Tick())
