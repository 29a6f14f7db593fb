"""One term of a leading coordinator: the machine, fed one event after the other, and its store.

Thread: the coordinator's loop. What a snapshot says is in the store before any later action is
carried out, and no event is looked at meanwhile. When the store fails or the leadership is lost the
term ends: the machine has decided what nobody may know of, so it is thrown away, and the next one
begins with what the store says. To peers that is a coordinator that was killed and came back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import (
    Close,
    CoordinatorEvent,
    Persist,
    Send,
    Tell,
    Tick,
    decides,
)
from atoll.store import Deposed, Store

TICK_S = 0.05

Visible = Send | Close | Tell


class Term:
    """`post` from the loop, `run` once."""

    def __init__(
        self,
        machine: CoordinatorMachine,
        store: Store,
        act: Callable[[Visible], None],
        after: Callable[[], None],
    ) -> None:
        """`act` is called for each action in order, but for those that are the store's; `after`
        when all actions of an event have been carried out."""
        self.machine = machine
        self._store = store
        self._act = act
        self._after = after
        self._events: deque[tuple[CoordinatorEvent, asyncio.Event | None]] = deque([(Tick(), None)])
        self._some = asyncio.Event()
        self._some.set()
        self._over = False

    def post(self, event: CoordinatorEvent) -> None:
        """To be handled when those before it have been."""
        if not self._over:
            self._events.append((event, None))
            self._some.set()

    async def handled(self, event: CoordinatorEvent) -> None:
        """Posts and waits for its turn to be over: a peer is not read faster than it is heard."""
        if not self._over:
            done = asyncio.Event()
            self._events.append((event, done))
            self._some.set()
            await done.wait()

    async def run(self) -> None:
        """Never returns. Raises StoreUnavailable or Deposed at the end of the term."""
        ticker = asyncio.create_task(self._tick(), name="atoll-coordinator-tick")
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                while self._events:
                    event, done = self._events.popleft()
                    try:
                        await self._handle(event)
                    finally:
                        if done is not None:
                            done.set()
        finally:
            self._over = True
            ticker.cancel()
            for _, done in self._events:
                if done is not None:
                    done.set()
            self._events.clear()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self._events:
                self.post(Tick())

    async def _handle(self, event: CoordinatorEvent) -> None:
        self._check()
        actions = self.machine.handle(event, time.monotonic())
        if any(map(decides, actions)) and not any(isinstance(a, Persist) for a in actions):
            await self._store.confirm()
        for action in actions:
            if isinstance(action, Persist):
                await self._store.save(action.snapshot)
            else:
                self._check()
                self._act(action)
        self._after()

    def _check(self) -> None:
        reason = self._store.lost()
        if reason:
            raise Deposed(reason)
