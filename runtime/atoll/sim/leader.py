"""A simulated coordinator that leads, or believes that it does.

Its store is the register that all coordinators of the job share: whoever takes the lead there is
the only one that can write or have its lead confirmed, as with etcd. Nothing here goes by a clock:
a leader that was deposed while it was frozen knows nothing of it, and what it had still to send
goes out when it thaws.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import (
    Close,
    CoordinatorAction,
    CoordinatorEvent,
    Persist,
    Received,
    Send,
    Snapshot,
    StreamLost,
    Tell,
    Tick,
    decides,
)
from atoll.membership.messages import Fence, Install, NotLeader
from atoll.sim.network import Stream
from atoll.store.encode import from_json, to_json

if TYPE_CHECKING:
    from atoll.sim.job import Job
    from atoll.sim.process import Process


class Register:
    """What etcd is to the coordinators: a snapshot, and who may write it."""

    def __init__(self, on_save: Callable[[Snapshot], None]) -> None:
        self._lives = 1
        self._saved: str | None = None
        self._leader = 0
        self._on_save = on_save

    def lead(self) -> tuple[int, Snapshot | None]:
        """Makes the caller the one that may write. Returns its token, and what was saved."""
        self._leader += 1
        return self._leader, None if self._saved is None else from_json(self._saved)

    def leads(self, token: int) -> bool:
        return token == self._leader

    def lose(self) -> None:
        """The disk is gone. Whoever leads next begins another job, with a secret of its own."""
        self._saved = None
        self._leader += 1
        self._lives += 1

    @property
    def secret(self) -> bytes:
        """Of the job that began when there was nothing here."""
        return bytes([self._lives]) * 32

    def save(self, token: int, snapshot: Snapshot) -> bool:
        """Returns whether it was written: not, if somebody else leads."""
        if not self.leads(token):
            return False
        self._saved = to_json(snapshot)
        self._on_save(snapshot)
        return True


class Leader:
    """One term of one coordinator."""

    def __init__(self, job: Job, register: Register) -> None:
        self._job, self._world = job, job.world
        self._register = register
        self._token, snapshot = register.lead()
        self.machine = CoordinatorMachine(job.options, secret=register.secret, snapshot=snapshot)
        self.over = False
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count(1)
        self._frozen = False
        self._rest: deque[CoordinatorAction] = deque()
        self._events: deque[CoordinatorEvent] = deque()

    @property
    def frozen(self) -> bool:
        return self._frozen

    def freeze(self) -> None:
        """It does nothing, not even what it has decided already; its connections stay."""
        self._frozen = True

    def thaw(self) -> None:
        self._frozen = False
        self._go_on()

    def end(self, *, polite: bool = False) -> None:
        """The process dies, or, polite, notices that it leads no more and says so."""
        if self.over:
            return
        self.over = True
        for stream in list(self._streams.values()):
            if polite:
                stream.tell(NotLeader(leader="", message="stands by"))
                stream.end_by_coordinator()
            else:
                stream.break_now()
        self._job.on_term_over(self)

    def connect(self, process: Process) -> Stream:
        number = next(self._numbers)
        stream = Stream(
            self._world,
            number,
            twice=self._job.twice,
            to_coordinator=lambda first, also: self.drive(
                Received(stream=number, message=first, also=also)
            ),
            to_peer=lambda message: process.heard(stream, message),
            lost_at_coordinator=lambda: self._lose(number),
            lost_at_peer=lambda: process.stream_lost(stream),
        )
        self._streams[number] = stream
        return stream

    def _lose(self, number: int) -> None:
        self._streams.pop(number, None)
        self.drive(StreamLost(stream=number))

    def drive(self, event: CoordinatorEvent) -> None:
        """Handled now, when it thaws, or never."""
        if not self.over:
            self._events.append(event)
            self._go_on()

    def _go_on(self) -> None:
        while not self.over and not self._frozen and (self._rest or self._events):
            if self._rest:
                self._act(self._rest.popleft())
                continue
            event = self._events.popleft()
            if self._world.tracing and not isinstance(event, Tick):
                self._world.trace("coord", f"<- {event}")
            actions = self.machine.handle(event, self._world.now_s)
            asks = any(map(decides, actions)) and not any(isinstance(a, Persist) for a in actions)
            if asks and not self._register.leads(self._token):
                self._depose()
            else:
                self._rest.extend(actions)

    def _act(self, action: CoordinatorAction) -> None:
        match action:
            case Persist(snapshot=snapshot):
                self._save(snapshot)
            case Send(stream=number, message=message):
                if isinstance(message, Fence | Install) and self._register.leads(self._token):
                    self._job.on_view_change()
                if self._frozen:  # just now: it is still to be sent
                    self._rest.appendleft(action)
                elif number in self._streams and not self.over:
                    self._streams[number].tell(message)
            case Close(stream=number):
                if number in self._streams:
                    self._streams[number].end_by_coordinator()
            case Tell(event=event):
                self._world.trace("coord", f"** {event.message}")
                self._job.checks.on_event(event)

    def _save(self, snapshot: Snapshot) -> None:
        """A write that fails may have been applied: the term ends in either case."""
        fails = self._job.write_fails()
        applied = not fails or self._world.chance(0.5)
        if applied and not self._register.save(self._token, snapshot):
            self._depose()
        elif fails:
            self._world.trace("coord", f"a write fails{' after all' if applied else ''}")
            self.end(polite=True)

    def _depose(self) -> None:
        self._world.trace("coord", "finds that it leads no more")
        self.end(polite=True)
