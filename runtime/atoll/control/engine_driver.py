"""The native engine as the peer's machine uses it: commands go in, events come out.

Thread: the control thread's loop. It owns the engine's events, and so the ends of ops and probes;
the engine itself is the session's as well (docs/threads.md).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from atoll.control import link_report
from atoll.control.engine_events import from_engine
from atoll.membership.messages import Endpoint, LinkFigures, PeerId
from atoll.membership.peer_events import (
    Carry,
    Dial,
    Drop,
    EngineProbed,
    Expect,
    FenceEngine,
    InstallEngine,
    PeerEvent,
    Probe,
)

if TYPE_CHECKING:
    from atoll._core import Engine

logger = logging.getLogger(__name__)

EngineCommand = Expect | Dial | Carry | Drop | FenceEngine | InstallEngine | Probe


def _pairs(endpoints: tuple[Endpoint, ...]) -> list[tuple[str, int]]:
    return [(endpoint.host, endpoint.port) for endpoint in endpoints]


class EngineDriver:
    """One engine, from `attach` to `detach`."""

    def __init__(
        self,
        engine: Engine,
        *,
        on_event: Callable[[PeerEvent], None],
        on_op_ended: Callable[[int], None],
        on_fence_over: Callable[[str, float], None] = lambda kind, seconds: None,
        names_of: Callable[[str], list[str]] = lambda island: [],
    ) -> None:
        """names_of: what the certificate of a peer of this island may be called; nothing: anything.
        on_fence_over: told of every change of view: drain or abort, and the seconds from the
        fence to the next view, in which no further op may start."""
        self._engine = engine
        self._on_fence_over = on_fence_over
        self._names_of = names_of
        self._fenced_s: float | None = None
        self._on_event = on_event
        self._on_op_ended = on_op_ended
        self._probes: dict[int, PeerId] = {}  # by op
        self._reported = b""  # the figures that the log has told of

    def attach(self) -> None:
        """Takes events when the engine rings, by the running loop."""
        asyncio.get_running_loop().add_reader(self._engine.event_fd, self.take_events)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Takes what is there and listens no more."""
        self.take_events()
        loop.remove_reader(self._engine.event_fd)

    def take_events(self) -> None:
        """Hands on all events that the engine has."""
        for native in self._engine.take_events():
            if type(native).__name__ in {"Refused", "NotLocal"}:
                logger.warning("%s", getattr(native, "message", ""))
                continue
            event = from_engine(native)
            if isinstance(event, int) and event in self._probes:
                self._probed(event)
            elif isinstance(event, int):
                self._on_op_ended(event)
            else:
                self._on_event(event)

    def abandon(self) -> None:
        """Closes the engine when nobody will drive the machine any more: its ops wake."""
        self._engine.close()
        for event in self._engine.take_events():
            op = getattr(event, "op", None)
            if op is not None:
                self._on_op_ended(op)

    def close(self) -> None:
        """Ends the engine's links and ops; the events of that still come."""
        self._engine.close()

    def _probed(self, op: int) -> None:
        """The engine tells ops' ends in order, so a probe's number is known before its end is."""
        peer = self._probes.pop(op)
        outcome = self._engine.wait(op, 0)
        self._engine.release(op)
        figures = None
        if outcome is not None and outcome.code == "ok":
            figures = LinkFigures(
                rate_bytes_per_s=outcome.bytes_per_s, rtt_s=outcome.round_trip_ns / 1e9
            )
        self._on_event(EngineProbed(peer=peer, figures=figures))

    def _report(self, epoch: int, topology: bytes) -> None:
        """Says once what follows from newly measured links."""
        from atoll import _core

        if topology in (b"", self._reported) or not logger.isEnabledFor(logging.INFO):
            return
        self._reported = topology
        measured = _core.Topology(topology)
        if measured.members <= link_report.MOST_MEMBERS:
            logger.info("view %d: %s", epoch, link_report.chosen(measured))

    def do(self, command: EngineCommand) -> None:
        """Passes a command of the machine on to the engine."""
        engine = self._engine
        match command:
            case Expect(peer=peer, island=island, endpoints=endpoints):
                engine.expect(peer, _pairs(endpoints), names=self._names_of(island))
            case Dial(peer=peer, island=island, endpoints=endpoints, detour=detour):
                pairs, names = _pairs(endpoints), self._names_of(island)
                if detour is None:
                    engine.dial(peer, pairs, names=names)
                else:
                    engine.dial(peer, pairs, detour.relay, detour.ticket, names=names)
            case Carry(one=one, other=other, ticket=ticket):
                if ticket:
                    engine.carry(one, other, ticket)
                else:
                    engine.uncarry(one, other)
            case Drop(peer=peer):
                engine.drop(peer)
            case FenceEngine(attempt=attempt, kind=kind):
                if self._fenced_s is None:  # an abort may supersede a drain
                    self._fenced_s = time.monotonic()
                engine.fence(attempt, kind.value)
            case InstallEngine(view=view, starts=starts, kind=kind, topology=topology):
                engine.install(
                    view.epoch, list(view.ids), dict(starts), kind.value, topology=topology
                )
                self._report(view.epoch, topology)
                if self._fenced_s is not None:
                    self._on_fence_over(kind.value, time.monotonic() - self._fenced_s)
                    self._fenced_s = None
            case Probe(peer=peer, burst_s=burst_s):
                self._probes[engine.probe(peer, duration_s=burst_s)] = peer
            case _:
                assert_never(command)
