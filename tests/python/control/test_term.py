"""A coordinator's term: the store comes first, and its failure is the term's end."""

from __future__ import annotations

import asyncio

import pytest

from atoll.control.term import Term, Visible
from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import CoordinatorOptions, Received, Send, Snapshot
from atoll.membership.messages import Heartbeat, Listening, Refused, Register, Welcome
from atoll.store import Deposed, StoreUnavailable
from atoll.store.memory import MemoryStore


class Slow(MemoryStore):
    """Each write waits until it is let through; `fails` is what it raises then."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.waiting = asyncio.Event()
        self.fails: StoreUnavailable | None = None
        self.deposed = ""
        self.confirmed = 0

    def lost(self) -> str:
        return self.deposed

    async def save(self, snapshot: Snapshot) -> None:
        self.waiting.set()
        await self.open.wait()
        if self.fails is not None:
            raise self.fails
        await super().save(snapshot)

    async def confirm(self) -> None:
        self.confirmed += 1
        if self.fails is not None:
            raise self.fails


class Stage:
    def __init__(self) -> None:
        self.store = Slow()
        self.acts: list[Visible] = []
        machine = CoordinatorMachine(CoordinatorOptions(job="reef"), secret=bytes(32))
        self.term = Term(machine, self.store, self.acts.append, lambda: None)
        self.running = asyncio.create_task(self.term.run())

    def sent(self, kind: type) -> list[object]:
        sends = [act for act in self.acts if isinstance(act, Send)]
        return [act.message for act in sends if isinstance(act.message, kind)]


REGISTER = Register(software_version="1", job="reef", peer=b"p" * 16, island="palm")
WRONG = Register(software_version="1", job="other", peer=b"q" * 16, island="fern")


def test_nothing_is_said_before_it_is_written_and_events_wait() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.store.waiting.wait()  # the first snapshot
        stage.term.post(Received(stream=1, message=REGISTER))
        handled = asyncio.create_task(
            stage.term.handled(Received(stream=1, message=Listening(endpoints=())))
        )
        await asyncio.sleep(0.2)  # several ticks
        assert stage.acts == []
        assert not handled.done()
        stage.store.open.set()
        await handled
        assert len(stage.sent(Welcome)) == 1
        stage.running.cancel()

    asyncio.run(story())


def test_a_write_that_fails_ends_the_term_and_what_followed_is_never_said() -> None:
    async def story() -> None:
        stage = Stage()
        stage.store.open.set()
        await asyncio.sleep(0.1)
        stage.store.fails = StoreUnavailable("the disk is full")
        stage.term.post(Received(stream=1, message=REGISTER))
        late = asyncio.create_task(stage.term.handled(Received(stream=1, message=Heartbeat())))
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await stage.running
        await late  # whoever waited is not left to wait
        await stage.term.handled(Received(stream=1, message=Heartbeat()))
        assert stage.acts == []

    asyncio.run(story())


def test_a_refusal_is_confirmed_although_nothing_is_written() -> None:
    async def story() -> None:
        stage = Stage()
        stage.store.open.set()
        await stage.term.handled(Received(stream=1, message=WRONG))
        assert stage.store.confirmed == 1
        assert len(stage.sent(Refused)) == 1
        stage.store.fails = Deposed("other:1 leads now")
        stage.term.post(Received(stream=2, message=WRONG))
        with pytest.raises(Deposed, match="other:1 leads now"):
            await stage.running
        assert len(stage.sent(Refused)) == 1

    asyncio.run(story())


def test_a_heartbeat_costs_the_store_nothing() -> None:
    async def story() -> None:
        stage = Stage()
        stage.store.open.set()
        await stage.term.handled(Received(stream=1, message=REGISTER))
        before = stage.store.confirmed
        await stage.term.handled(Received(stream=1, message=Heartbeat()))
        assert len(stage.sent(Heartbeat)) == 1
        assert stage.store.confirmed == before
        stage.running.cancel()

    asyncio.run(story())


@pytest.mark.parametrize("while_writing", [False, True])
def test_a_lead_that_has_run_out_ends_the_term_by_itself(while_writing: bool) -> None:
    async def story() -> None:
        stage = Stage()
        if while_writing:
            await stage.store.waiting.wait()
            stage.term.post(Received(stream=1, message=REGISTER))
        else:
            stage.store.open.set()
            await asyncio.sleep(0.1)
        stage.store.deposed = "the lease was not renewed in time"
        stage.store.open.set()
        with pytest.raises(Deposed, match="the lease was not renewed in time"):
            await stage.running
        assert stage.acts == []

    asyncio.run(story())
