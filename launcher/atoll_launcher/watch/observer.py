"""Follows a job through its coordinator: Status and Watch of control.proto, turned into events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from atoll.config import parse_addresses
from atoll.control.channel import CHANNEL_OPTIONS, open_channel
from atoll.membership.route import Route
from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.watch.events import Event, Kind, Value

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

POLL_S = 0.5
CALL_TIMEOUT_S = 10.0
RETRY_S = 1.0
ELECTION_S = 4.0
"""More than it takes a standby to lead."""
HISTORY_PAUSE_S = 0.25
HISTORY_S = 1.5
LATE_ROUNDS = 2
"""What members report of themselves is told of the rounds that they are in, not of those long past:
short ones may be over before anybody has asked."""
# Events come in groups, and their status is the same: one question for all of them.
FRESH_S = 0.02
# The coordinator is often on this machine: no http_proxy of the environment may get between.
OPTIONS = [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)]

_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION)
_SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_KINDS = {
    kind.value: kind
    for kind in (
        Kind.JOINED,
        Kind.DRAINING,
        Kind.LEFT,
        Kind.VIEW,
        Kind.ROUND,
        Kind.PARITY,
        Kind.HEALED,
        Kind.STATE_LOST,
        Kind.CHECKPOINT,
        Kind.CHECKPOINT_FAILED,
        Kind.CHECKPOINT_DAMAGED,
        Kind.RESTORED,
        Kind.RELAYED,
        Kind.STOPPING,
        Kind.REVOKED,
        Kind.LAYOUT,
        Kind.RECOVERY,
        Kind.THROUGHPUT,
    )
}


def departure_name(reason: int) -> str:
    """Return crashed for DEPARTURE_CRASHED, and so on; empty when there is no reason."""
    if reason == pb.DEPARTURE_UNSPECIFIED:
        return ""
    try:
        return pb.Departure.Name(reason).removeprefix("DEPARTURE_").lower()
    except ValueError:
        return f"reason {reason}"


def member_names(status: pb.StatusReply) -> list[str]:
    """Return the islands of the current view, by rank."""
    names = {peer.info.id: peer.info.island for peer in status.peers}
    return list(dict.fromkeys(names.get(member, member.hex()[:8]) for member in status.members))


def report_event(peer: pb.PeerStatus, time_s: float) -> Event:
    """Return what a peer reported last, with the report's own field names."""
    report = peer.report
    fields: dict[str, Value] = {
        field.name: getattr(report, field.name) for field in report.DESCRIPTOR.fields
    }
    fields["peer_id"] = peer.info.id.hex()
    return Event(kind=Kind.REPORT, time_s=time_s, island=peer.info.island, fields=fields)


def job_event(event: pb.JobEvent, status: pb.StatusReply | None) -> Event | None:
    """Return an event of the coordinator, completed by the status right after it.

    None for kinds that this launcher does not know: a newer coordinator may have more.
    """
    kind = _KINDS.get(event.kind)
    if kind is None:
        return None
    fields: dict[str, Value] = {"epoch": event.epoch}
    if event.peer_id:
        fields["peer_id"] = event.peer_id.hex()
    if event.message:
        fields["message"] = event.message
    if kind is Kind.LEFT:
        fields["reason"] = departure_name(event.reason) or "unknown"
    if kind is Kind.VIEW and status is not None and status.epoch == event.epoch:
        fields["members"] = list(member_names(status))
    if kind is Kind.HEALED:
        fields["round"] = event.round
    if kind in (Kind.ROUND, Kind.PARITY):
        fields["round"] = event.round
        fields["loss"] = event.loss
    if kind is Kind.ROUND and status is not None and status.round - event.round <= LATE_ROUNDS:
        fields.update(_round_sums(event, status))
    return Event(kind=kind, time_s=event.time_s, island=event.island, fields=fields)


def _round_sums(event: pb.JobEvent, status: pb.StatusReply) -> Mapping[str, Value]:
    members = [peer for peer in status.peers if peer.info.id in set(status.members)]
    reports = [peer.report for peer in members]
    done = [p for p in members if p.report.round == event.round and p.report.contributed]
    return {
        "islands": len({peer.info.island for peer in members}),
        "contributed": sorted({peer.info.island for peer in done}),
        "tokens_per_s": sum(report.tokens_per_s for report in reports),
        "sync_s": sum(r.sync_s for r in reports) / len(reports) if reports else float("nan"),
        "sent_bytes": sum(report.sent_bytes for report in reports),
    }


def unreachable(address: str, error: grpc.aio.AioRpcError) -> LauncherError:
    """Return the error of a command that needs a coordinator and found none."""
    if error.code() in _SILENT:
        text = "check the address, and that the job still runs"
    else:
        text = f"is it a coordinator of atoll? ({error.code().name.lower()})"
    return LauncherError(f"no coordinator at {address}: {text}", exit_codes.CANNOT_JOIN)


async def turned_away(
    addresses: str, identity: Identity | None, error: grpc.aio.AioRpcError
) -> LauncherError:
    """Return the error of a command that no coordinator has answered: often for its certificate."""
    from atoll.trust.why import refusal

    for address in parse_addresses(addresses) if error.code() in _SILENT else ():
        why = await asyncio.to_thread(refusal, address, identity, now=datetime.now(UTC))
        if why is not None:
            return LauncherError(
                f"not let in by the coordinator at {address}: {why}", exit_codes.CANNOT_JOIN
            )
    return unreachable(addresses, error)


async def fetch_status(addresses: str, identity: Identity | None = None) -> pb.StatusReply:
    """Ask for a job's status. Raises LauncherError when there is none."""
    return (await find_leader(addresses, identity))[1]


async def find_leader(
    addresses: str, identity: Identity | None = None
) -> tuple[str, pb.StatusReply]:
    """Return who leads of the coordinators at `addresses`, and the job's status. Raises
    LauncherError when none of them answers, or none leads for a while."""
    route = Route(parse_addresses(addresses))
    end = time.monotonic() + CALL_TIMEOUT_S + (ELECTION_S if route.several else 0.0)
    standby: LauncherError | None = None
    problem: grpc.aio.AioRpcError | None = None
    while (left_s := end - time.monotonic()) > 0:
        address = route.current
        async with open_channel(address, identity, OPTIONS) as channel:
            stub = control_pb2_grpc.CoordinatorStub(channel)
            try:
                timeout_s = min(left_s, 1.0 if route.several else CALL_TIMEOUT_S)
                reply: pb.StatusReply = await stub.Status(pb.StatusRequest(), timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                if not route.several:
                    raise await turned_away(addresses, identity, error) from None
                problem = error
                route.failed()
            else:
                if not reply.standby:
                    return address, reply
                text = f"it is said to be {reply.leader}" if reply.leader else "etcd may be down"
                standby = LauncherError(
                    f"no leader at {addresses}: {address} stands by; {text}",
                    exit_codes.CANNOT_JOIN,
                )
                route.failed(reply.leader)
        await asyncio.sleep(0.1)
    if standby is None:
        assert problem is not None
        raise await turned_away(addresses, identity, problem)
    raise standby


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What had happened in a job before this launcher came."""

    joined: frozenset[str] = frozenset()
    last_number: int = 0


async def fetch_history(address: str, identity: Identity | None = None) -> History:
    """Return the islands that ever joined and the number of the last event.

    The stream of events has no end; what was kept comes at once, so a pause ends it, or the time:
    where rounds are short there is no pause.
    """
    names: set[str] = set()
    number = 0
    leader, _ = await find_leader(address, identity)
    async with open_channel(leader, identity, OPTIONS) as channel:
        stub = control_pb2_grpc.CoordinatorStub(channel)
        stream = aiter(stub.Watch(pb.WatchRequest(after=0)))
        with contextlib.suppress(grpc.aio.AioRpcError, StopAsyncIteration, TimeoutError):
            # One time-out inside another would not do: wait_for may swallow the outer one's
            # cancellation when an event comes in the same moment.
            end = time.monotonic() + HISTORY_S
            pause_s = HISTORY_S  # the first may be slow to come
            while (left_s := end - time.monotonic()) > 0:
                event = await asyncio.wait_for(anext(stream), min(pause_s, left_s))
                pause_s = HISTORY_PAUSE_S
                number = event.number
                if event.kind == Kind.JOINED:
                    names.add(event.island)
    return History(joined=frozenset(names), last_number=number)


class Observer:
    """Calls `on_event` and `on_status` for what a coordinator tells; reconnects when it is away.

    Everything runs on the event loop that `run` runs on.
    """

    def __init__(
        self,
        address: str,
        on_event: Callable[[Event], None],
        on_status: Callable[[pb.StatusReply], None],
        before_event: Callable[[Event], Awaitable[None]],
        after: int = 0,
        identity: Identity | None = None,
    ) -> None:
        """`after`: number of the last event that is not to be told. `before_event` is awaited for
        each of the coordinator's events, in order, so that it can hold one back."""
        self._identity = identity
        self._before_event = before_event
        self._route = Route(parse_addresses(address))
        self._on_event = on_event
        self._on_status = on_status
        self._channels: dict[str, Any] = {}
        self._reports: dict[bytes, bytes] = {}
        self._last_number = after
        self._watched = self._route.current  # whose events came last
        self._is_away = False
        self._is_stopping = False  # the coordinator goes with the job, and is not missed
        self._is_new = True
        self._latest: pb.StatusReply | None = None
        self._asked_s = -FRESH_S

    async def run(self) -> None:
        """Follow the job until cancelled."""
        await asyncio.gather(self._watch(), self._poll())

    async def refresh(self) -> pb.StatusReply | None:
        """Ask for the status now; None when the coordinator is away."""
        self._asked_s = time.monotonic()
        try:
            status: pb.StatusReply = await self.stub.Status(
                pb.StatusRequest(), timeout=1.0 if self._route.several else CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            self._latest = None
            self._route.failed()
            return None
        if status.standby:
            self._latest = None
            self._route.failed(status.leader)
            return None
        self._latest = status
        now_s = time.time()
        for peer in status.peers:
            raw = peer.report.SerializeToString(deterministic=True)
            if peer.HasField("report") and self._reports.get(peer.info.id) != raw:
                self._reports[peer.info.id] = raw
                self._on_event(report_event(peer, now_s))
        self._on_status(status)
        if self._is_new and status.epoch:
            # The view that was there before; events tell of the next ones.
            fields: dict[str, Value] = {"epoch": status.epoch, "members": [*member_names(status)]}
            self._on_event(Event(kind=Kind.VIEW, time_s=now_s, fields=fields))
        self._is_new = False
        return status

    async def stop_job(self, message: str) -> None:
        """Ask all peers of the job to leave."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.stub.Stop(pb.StopRequest(message=message), timeout=1.0)

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)

    @property
    def stub(self) -> Any:
        """Of the coordinator that leads, as far as is known."""
        address = self._route.current
        if address not in self._channels:
            self._channels[address] = open_channel(address, self._identity, OPTIONS)
        return control_pb2_grpc.CoordinatorStub(self._channels[address])

    async def _watch(self) -> None:
        while True:
            try:
                watched = self._route.current
                async for event in self.stub.Watch(pb.WatchRequest(after=self._last_number)):
                    self._came_back()
                    self._watched = watched
                    self._last_number = event.number
                    if not self._knows_of(event):
                        await self.refresh()
                    known = job_event(event, self._latest)
                    if known is not None:
                        self._is_stopping |= known.kind is Kind.STOPPING
                        await self._before_event(known)
                        self._on_event(known)
            except grpc.aio.AioRpcError as error:
                self._went_away(error)
            await asyncio.sleep(RETRY_S)

    def _knows_of(self, event: pb.JobEvent) -> bool:
        status = self._latest
        is_recent = time.monotonic() - self._asked_s <= FRESH_S
        if status is None or not is_recent:
            return False
        return status.epoch >= event.epoch and status.round >= event.round

    async def _poll(self) -> None:
        while True:
            if await self.refresh() is not None:
                self._came_back()
            await asyncio.sleep(POLL_S)

    def _went_away(self, error: grpc.aio.AioRpcError) -> None:
        if not self._is_away and not self._is_stopping and error.code() in _AWAY:
            self._is_away = True
            address = self._watched
            self._note(f"the coordinator at {address} does not answer; the islands go on")

    def _came_back(self) -> None:
        if self._is_away:
            self._is_away = False
            now = self._route.current
            again = "answers again" if now == self._watched else "leads now"
            self._note(f"the coordinator at {now} {again}")

    def _note(self, message: str) -> None:
        self._on_event(Event(kind=Kind.NOTE, time_s=time.time(), fields={"message": message}))
