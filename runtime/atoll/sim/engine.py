"""A model of the native engine: what it starts, holds and commits, without a byte of data.

It keeps to docs/design.md 3.1 and to the words of `csrc/atoll/collective/core.h`. Two kinds of ops:
a *sum* is done at a member when it has everybody's contribution, a *broadcast* when it has the
root's. No I/O: frames go out through `send`, notices through `emit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from atoll.membership.messages import ChangeKind, Counters, PeerId, View
from atoll.membership.peer_events import EngineFenced, EngineInstalled

BROADCAST_EVERY = 2
"""On channel 1 every other op is a broadcast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What one member puts into one op in one view. `state`: digest of what it is computed from."""

    peer: PeerId
    epoch: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    epoch: int
    channel: int
    sequence: int
    data: Contribution | None  # None: DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    epoch: int
    contributions: tuple[Contribution, ...]


@dataclass(slots=True)
class Op:
    sequence: int
    state: str
    data: dict[PeerId, Contribution] = field(default_factory=dict)
    dones: set[PeerId] = field(default_factory=set)
    result: Result | None = None


@dataclass(slots=True)
class Channel:
    started: int = 0
    done: int = 0
    committed: int = 0
    op: Op | None = None
    waiting: list[str] = field(default_factory=list)  # submitted, not started: their inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    view: View
    starts: Mapping[int, int]


class Watcher(Protocol):
    """Who checks the invariants."""

    def on_done(self, engine: Engine, channel: int, op: Op) -> None: ...
    def on_commit(self, engine: Engine, channel: int, op: Op) -> None: ...
    def on_install(
        self, engine: Engine, view: View, starts: Mapping[int, int], kind: ChangeKind
    ) -> None: ...


class Engine:
    def __init__(
        self,
        peer: PeerId,
        *,
        send: Callable[[PeerId, Frame], None],
        emit: Callable[[EngineFenced | EngineInstalled], None],
        complete: Callable[[int, Op], None],
        watcher: Watcher,
    ) -> None:
        self.peer = peer
        self.view = View()
        self.channels: dict[int, Channel] = {}
        self.fenced: ChangeKind | None = None
        self.pending: Pending | None = None
        self._early: list[tuple[PeerId, Frame]] = []
        self._send, self._emit, self._complete, self.watcher = send, emit, complete, watcher

    @property
    def member(self) -> bool:
        return self.peer in self.view.ids

    def channel(self, number: int) -> Channel:
        return self.channels.setdefault(number, Channel())

    # --- commands ---------------------------------------------------------------------------------

    def submit(self, number: int, state: str) -> None:
        self.channel(number).waiting.append(state)
        self._start(number)

    def fence(self, attempt: int, kind: ChangeKind) -> None:
        if self.fenced is not ChangeKind.ABORT:  # what is frozen stays so until the next view
            self.fenced = kind
        progress = {
            number: Counters(started=c.started, done=c.done, committed=c.committed)
            for number, c in self.channels.items()
        }
        self._emit(EngineFenced(attempt=attempt, epoch=self.view.epoch, progress=progress))

    def install(self, view: View, starts: Mapping[int, int], kind: ChangeKind) -> None:
        if view.epoch <= self.view.epoch:
            return
        if kind is ChangeKind.ABORT or not self.member:
            self._switch(view, starts, kind)
        else:
            self.pending = Pending(view=view, starts=starts)
            for number in sorted(self.channels):
                self._start(number)
            self._try_drain()

    def link_down(self, peer: PeerId) -> None:
        self._early = [(sender, frame) for sender, frame in self._early if sender != peer]

    # --- frames -----------------------------------------------------------------------------------

    def deliver(self, sender: PeerId, frame: Frame) -> None:
        if frame.epoch > self.view.epoch:
            self._early.append((sender, frame))
            return
        if frame.epoch < self.view.epoch or self.fenced is ChangeKind.ABORT or not self.member:
            return
        channel = self.channel(frame.channel)
        if frame.sequence < channel.committed:
            return
        if channel.op is None or channel.op.sequence != frame.sequence:
            self._early.append((sender, frame))
            return
        self._apply(sender, frame, channel.op)
        self._advance(frame.channel)

    def _apply(self, sender: PeerId, frame: Frame, op: Op) -> None:
        if frame.data is None:
            op.dones.add(sender)
        else:
            op.data[sender] = frame.data

    def _take_early(self, number: int, op: Op) -> None:
        kept = []
        for sender, frame in self._early:
            now = (self.view.epoch, number, op.sequence)
            if (frame.epoch, frame.channel, frame.sequence) == now:
                self._apply(sender, frame, op)
            elif frame.epoch >= self.view.epoch:
                kept.append((sender, frame))
        self._early = kept

    # --- ops --------------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        channel = self.channel(number)
        if channel.op is not None or not channel.waiting or not self.member:
            return
        if self.fenced is ChangeKind.ABORT:
            return
        sequence = channel.committed
        if self.fenced is ChangeKind.DRAIN and (
            self.pending is None or sequence >= self.pending.starts.get(number, 0)
        ):
            return
        op = channel.op = Op(sequence, channel.waiting.pop(0))
        channel.started = sequence + 1
        self._take_early(number, op)
        mine = Contribution(peer=self.peer, epoch=self.view.epoch, state=op.state)
        op.data[self.peer] = mine
        self._tell(number, sequence, mine)
        self._advance(number)

    def _tell(self, number: int, sequence: int, data: Contribution | None) -> None:
        frame = Frame(epoch=self.view.epoch, channel=number, sequence=sequence, data=data)
        for peer in self.view.ids:
            if peer != self.peer:
                self._send(peer, frame)

    def _needed(self, number: int, sequence: int) -> tuple[PeerId, ...]:
        ids = self.view.ids
        return ids[:1] if number == 1 and sequence % BROADCAST_EVERY == 0 else ids

    def _advance(self, number: int) -> None:
        channel = self.channel(number)
        op = channel.op
        if op is None or self.fenced is ChangeKind.ABORT:
            return
        if op.result is None:
            needed = self._needed(number, op.sequence)
            if any(peer not in op.data for peer in needed):
                return
            contributions = tuple(op.data[peer] for peer in needed)
            op.result = Result(epoch=self.view.epoch, contributions=contributions)
            channel.done = op.sequence + 1
            self.watcher.on_done(self, number, op)
            self._tell(number, op.sequence, None)
        if all(peer in op.dones for peer in self.view.ids if peer != self.peer):
            self._commit(number, channel, op)
            self._try_drain()
            self._start(number)

    def _commit(self, number: int, channel: Channel, op: Op) -> None:
        channel.op = None
        channel.committed = channel.done = channel.started = op.sequence + 1
        self.watcher.on_commit(self, number, op)
        self._complete(number, op)

    # --- views ------------------------------------------------------------------------------------

    def _try_drain(self) -> None:
        pending = self.pending
        if pending is None:
            return
        if all(self.channel(n).committed >= start for n, start in pending.starts.items()):
            self._switch(pending.view, pending.starts, ChangeKind.DRAIN)

    def _switch(self, view: View, starts: Mapping[int, int], kind: ChangeKind) -> None:
        self.watcher.on_install(self, view, starts, kind)
        for number in sorted(self.channels.keys() | starts.keys()):
            self._carry_over(number, starts.get(number, 0))
        self.view = view
        self.fenced = self.pending = None
        self._early = [(s, frame) for s, frame in self._early if frame.epoch >= view.epoch]
        self._emit(EngineInstalled(epoch=view.epoch, member=self.member))
        for number in sorted(self.channels):
            self._start(number)

    def _carry_over(self, number: int, start: int) -> None:
        """Ops before `start` commit, those from it on run again with their inputs intact."""
        channel = self.channel(number)
        op = channel.op
        if op is not None and op.sequence < start and op.result is not None:
            self._commit(number, channel, op)
        elif op is not None:
            channel.op = None
            channel.waiting.insert(0, op.state)
        channel.started = channel.done = channel.committed = start
