"""The parts of a small job for the exhaustive explorer: real machines that can be copied whole.

A part handles one event and says what comes of it; it knows no queue, no network and no other part.
Parts are pickled to be copied, and are equal when their `canonical` forms are.
"""

from __future__ import annotations

import enum
import math
import pickle
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, assert_never

from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import (
    Close,
    CoordinatorEvent,
    CoordinatorOptions,
    Persist,
    Received,
    Send,
    Snapshot,
    StreamLost,
    Tell,
    Tick,
)
from atoll.membership.messages import (
    ChangeKind,
    CoordinatorMessage,
    Departure,
    Endpoint,
    PeerId,
    PeerMessage,
    View,
)
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    AppHolding,
    AppLeave,
    AppReady,
    Carry,
    Dial,
    Drop,
    Ended,
    EngineFenced,
    EngineInstalled,
    EngineStarted,
    Expect,
    FenceEngine,
    Heard,
    InstallEngine,
    LinkDown,
    LinkUp,
    PeerAction,
    PeerEvent,
    Probe,
    Reconnect,
    Say,
    StartEngine,
    StreamUp,
)
from atoll.membership.peer_events import StreamLost as PeerStreamLost
from atoll.membership.peer_events import Tick as PeerTick
from atoll.sim.checks import Violation, check_cut, check_result, named
from atoll.sim.engine import Engine, Frame, Op, Result

NEVER_S = 1e9
STEP_S = 0.1
"""Shorter than any patience of the coordinator's."""
LONGEST_S = 100.0
"""Longer than all of them."""

OPTIONS = CoordinatorOptions(
    job="sim",
    heartbeat_s=NEVER_S,
    heartbeat_timeout_s=NEVER_S,
    stall_s=NEVER_S,
    measure_settle_s=NEVER_S,
)
"""Nobody freezes and nothing is measured: what is explored is the order of what happens. All other
patience is the real one, and runs out at any moment (`Chair.wait`)."""

_HISTORY = {"options", "events", "next_event", "departures", "view_changes", "actions", "heard_s"}
_SPEED = {"roll", "ring_bits", "kept_out", "due_s", "outsiders"}
"""Of `State`: what it has told people, what is the same for ever or never looked at here, and what
it has worked out before."""
_TIME = {"_now_s", "_heard_s", "_said_s", "_last_s"}
_BACK = {"watcher", "_out", "_persisted"}
_LEFT_OUT = _HISTORY | _SPEED | _TIME | _BACK


def canonical(value: object) -> object:
    """Return a hashable form that is equal for two parts that behave alike. The order of a mapping
    counts, for machines may iterate over it; that of a set does not."""
    match value:
        case float():
            return "nan" if math.isnan(value) else value
        case None | bool() | int() | str() | bytes():
            return value
        case enum.Enum():
            return value.name
        case tuple() | list() | deque():
            return tuple(canonical(item) for item in value)
        case set() | frozenset():
            return tuple(sorted(value))
        case OrderedDict() | dict():
            return tuple((canonical(k), canonical(v)) for k, v in value.items())
    if is_dataclass(value):
        names = [field.name for field in fields(value)]
    elif hasattr(value, "__dict__"):
        names = [name for name, item in vars(value).items() if not callable(item)]
    else:
        raise TypeError(f"no canonical form of {type(value).__name__}")
    kept = (name for name in names if name not in _LEFT_OUT)
    return (type(value).__name__, *(canonical(getattr(value, name)) for name in kept))


# --- a peer's process -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class Sent:
    peer: PeerId
    frame: Frame


@dataclass(frozen=True, slots=True)
class Reached:
    """It dials a peer, or drops its link with one."""

    peer: PeerId
    wanted: bool


@dataclass(frozen=True, slots=True)
class Over:
    """The process ends."""


NodeOutput = Said | Sent | Reached | Over


@dataclass(frozen=True, slots=True)
class Committed:
    """`heard`: because all others were done, and not because a view said so."""

    sequence: int
    result: Result
    heard: bool


class Node:
    """One training process that wants to run one op, and what it has seen.

    What the machine tells the engine is done at once: nothing else that touches either of them can
    come in between that could not as well have come before. What the engine tells the machine
    waits in `inbox`, for the coordinator's words may overtake it.
    """

    def __init__(self, number: int, *, prompt: bool, ops: int = 1) -> None:
        self.id = named("abcdefg"[number], 1, 0)
        self.machine = PeerMachine(
            peer=self.id,
            island="abcdefg"[number],
            job=OPTIONS.job,
            software_version="sim",
            probes=False,
        )
        self.engine = Engine(
            self.id, send=self._send, emit=self._emit, complete=self._complete, watcher=self
        )
        self.inbox: list[PeerEvent] = []
        self.links: set[PeerId] = set()
        self.wanted: set[PeerId] = set()
        self.prompt = prompt
        self.reconnects = False
        self.ready = self.leaving = False
        self.held = 0  # the view whose state it has said to hold
        self.ops = ops
        self.submitted = 0
        self.committed: tuple[Committed, ...] = ()
        self.installed: tuple[tuple[int, tuple[PeerId, ...]], ...] = ()
        self._switching = False
        self._out: list[NodeOutput] = []

    # --- what may happen to it --------------------------------------------------------------------

    def take(self, event: str, payload: Any) -> list[NodeOutput]:
        """Lets something happen. Raises Violation when an invariant does not hold."""
        match event:
            case "heard":
                self._feed(Heard(message=payload))
            case "inbox":
                self._feed(self.inbox.pop(0))
            case "frame":
                self.engine.deliver(*payload)
            case "link up":
                self.links.add(payload)
                self.inbox.append(LinkUp(peer=payload))
            case "link lost":
                self.links.discard(payload)
                self.engine.link_down(payload)
                self.inbox.append(LinkDown(peer=payload, reason="reset"))
            case "submit":
                self.submitted += 1
                self.engine.submit(0, "state")
            case "leave":
                self.leaving = True
                self._feed(AppLeave(reason=Departure.FINISHED))
            case "ready":
                self.ready = True
                self._feed(AppReady())
            case "stream up":
                self.reconnects = False
                self._feed(StreamUp())
            case "stream lost":
                self._feed(PeerStreamLost())
            case "redial":
                self._feed(PeerTick(), NEVER_S / 2)
            case _:
                raise ValueError(event)
        while self.prompt and self.inbox:
            self._feed(self.inbox.pop(0))
        out, self._out = self._out, []
        return out

    @property
    def wants_to_submit(self) -> bool:
        """Whether its program may start an op: the coordinator knows that it holds the state."""
        machine = self.machine
        known = self.id in machine.holders or self.id in machine.donors
        began = max(self.submitted, machine.starts.get(0, 0) if not self.submitted else 0)
        return machine.member and known and began < self.ops

    @property
    def may_be_ready(self) -> bool:
        """Whether it has somebody to fetch the state from, or there is none."""
        machine = self.machine
        listed = any(info.id == self.id for info in machine.peers)
        return (
            not self.ready and listed and (not machine.donors or bool(machine.donors & self.links))
        )

    @property
    def settled(self) -> int:
        """Ops that are committed here, or were before it came."""
        return max(self.engine.channel(0).committed, self.machine.starts.get(0, 0))

    # --- the machine ------------------------------------------------------------------------------

    def _feed(self, event: PeerEvent, now_s: float = 0.0) -> None:
        for action in self.machine.handle(event, now_s):
            self._act(action)
        self._program()

    def _act(self, action: PeerAction) -> None:
        match action:
            case Say(message=message):
                self._out.append(Said(message))
            case Reconnect():
                self.reconnects = True
            case StartEngine():
                self.inbox.append(EngineStarted(endpoints=(Endpoint(host="sim", port=1),)))
            case Dial(peer=peer):
                self.wanted.add(peer)
                self._out.append(Reached(peer, True))
            case Carry():
                pass
            case Drop(peer=peer):
                self.wanted.discard(peer)
                self.links.discard(peer)
                self.engine.link_down(peer)
                self._out.append(Reached(peer, False))
            case FenceEngine(attempt=attempt, kind=kind):
                self.engine.fence(attempt, kind)
            case InstallEngine(view=view, starts=starts, kind=kind):
                self.engine.install(view, starts, kind)
            case Ended():
                self._out.append(Over())
            case Expect(peer=peer):
                self.wanted.add(peer)
            case Probe():
                pass
            case _:
                assert_never(action)

    def _program(self) -> None:
        """It fetches the state in no time."""
        machine = self.machine
        if machine.left and machine.ended is None:
            self._out.append(Over())
        if machine.member and self.held < machine.view.epoch and self.id not in machine.holders:
            self.held = machine.view.epoch
            self._feed(AppHolding(epoch=machine.view.epoch))

    # --- the engine -------------------------------------------------------------------------------

    def _send(self, peer: PeerId, frame: Frame) -> None:
        if peer in self.links:
            self._out.append(Sent(peer, frame))

    def _emit(self, event: EngineFenced | EngineInstalled) -> None:
        self.inbox.append(event)
        self._switching = False

    def _complete(self, channel: int, op: Op) -> None:
        pass

    def on_done(self, engine: Engine, channel: int, op: Op) -> None:
        check_result(engine, channel, op)

    def on_commit(self, engine: Engine, channel: int, op: Op) -> None:
        assert op.result is not None
        self.committed += (Committed(op.sequence, op.result, not self._switching),)

    def on_install(
        self, engine: Engine, view: View, starts: Mapping[int, int], kind: ChangeKind
    ) -> None:
        self._switching = True
        if view.epoch <= engine.view.epoch:
            raise Violation(f"one line: {self.id!r} goes back to view {view.epoch}")
        if engine.member:
            check_cut(engine, view, starts, kind)
        self.installed += ((view.epoch, view.ids),)


# --- the coordinator ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    stream: int
    message: CoordinatorMessage | None
    """None: the stream ends."""


class Chair:
    """The coordinator and its store."""

    def __init__(self, *, min_islands: int, restarts: bool) -> None:
        """`restarts`: whether what is in its store matters."""
        self.options = replace(OPTIONS, min_islands=min_islands)
        self.restarts = restarts
        self.now_s = 0.0
        self.saved: Snapshot | None = None
        self.views: dict[int, tuple[PeerId, ...]] = {}
        self.lineage: dict[int, int] = {0: 0}
        self._out: list[Told] = []
        self._persisted = False
        self.machine = CoordinatorMachine(self.options, secret=bytes(32))
        self._drive(Tick())

    def take(self, event: str, payload: Any) -> list[Told]:
        """Lets something happen. Raises Violation when an invariant does not hold."""
        match event:
            case "received":
                stream, message = payload
                self._drive(Received(stream=stream, message=message))
            case "lost":
                self._drive(StreamLost(stream=payload))
            case "wait":
                self._wait()
            case "restart":
                self.machine = CoordinatorMachine(
                    self.options, secret=bytes(32), snapshot=self.saved
                )
                self._drive(Tick())
            case _:
                raise ValueError(event)
        out, self._out = self._out, []
        return out

    def _wait(self) -> None:
        """Until its patience with something is over, or nothing more comes of waiting."""
        before, began_s = pickle.dumps(self.machine), self.now_s
        self._persisted = False
        while not self._out and not self._persisted:
            self.now_s += STEP_S
            self._drive(Tick())
            if self.now_s > began_s + LONGEST_S:
                self.machine, self.now_s = pickle.loads(before), began_s
                return

    def _drive(self, event: CoordinatorEvent) -> None:
        for action in self.machine.handle(event, self.now_s):
            match action:
                case Send(stream=stream, message=message):
                    self._out.append(Told(stream, message))
                case Close(stream=stream):
                    self._out.append(Told(stream, None))
                case Persist(snapshot=snapshot):
                    self.saved = snapshot if self.restarts else None
                    self._persisted = True
                    self._see(snapshot)
                case Tell():
                    pass
                case _:
                    assert_never(action)

    def _see(self, snapshot: Snapshot) -> None:
        for entry in snapshot.issued:
            view = entry.view
            if self.views.setdefault(view.epoch, view.ids) != view.ids:
                raise Violation(f"one line: view {view.epoch} was issued twice")
            began = self.lineage.get(entry.base, 0) if entry.base else view.epoch
            self.lineage.setdefault(view.epoch, began)
