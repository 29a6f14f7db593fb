"""Protobuf to values and back. What comes from the wire is checked here, and nowhere else.

Thread: any; pure functions. A message that breaks a rule raises MalformedMessage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, assert_never

from atoll.membership import events
from atoll.membership import messages as m
from atoll.pb import control_pb2 as pb

MAX_MESSAGE_BYTES = 4 << 20
MAX_PEERS = 4096  # of one view, as on the data plane
MAX_CHANNELS = 4096
MAX_ENDPOINTS = 16
MAX_NAME = 256
MAX_TEXT = 4096
ID_BYTES = 16
SECRET_BYTES = 32


class MalformedMessage(ValueError):
    """A message that breaks the format's rules; its text says which."""


# --- small things ---------------------------------------------------------------------------------

_DEPARTURES = {
    m.Departure.FINISHED: pb.DEPARTURE_FINISHED,
    m.Departure.DRAINED: pb.DEPARTURE_DRAINED,
    m.Departure.CRASHED: pb.DEPARTURE_CRASHED,
    m.Departure.SILENT: pb.DEPARTURE_SILENT,
    m.Departure.UNREACHABLE: pb.DEPARTURE_UNREACHABLE,
    m.Departure.PROTOCOL: pb.DEPARTURE_PROTOCOL,
    m.Departure.STOPPED: pb.DEPARTURE_STOPPED,
}
_KINDS = {m.ChangeKind.DRAIN: pb.CHANGE_DRAIN, m.ChangeKind.ABORT: pb.CHANGE_ABORT}
_DEPARTURES_BACK = {int(number): reason for reason, number in _DEPARTURES.items()}
_KINDS_BACK = {int(number): kind for kind, number in _KINDS.items()}


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise MalformedMessage(what)


def _peer_id(value: bytes) -> m.PeerId:
    _require(len(value) == ID_BYTES, f"a peer id of {len(value)} bytes instead of {ID_BYTES}")
    return value


def _peer_ids(values: Any) -> frozenset[m.PeerId]:
    _require(len(values) <= MAX_PEERS, f"more than {MAX_PEERS} peers")
    return frozenset(_peer_id(value) for value in values)


def _text(value: str, limit: int, what: str) -> str:
    _require(len(value) <= limit, f"{what} of {len(value)} characters, at most {limit}")
    return value


def _name(value: str, what: str) -> str:
    _require(bool(value) and value.isprintable(), f"{what} is empty or not printable")
    return _text(value, MAX_NAME, what)


def _departure(value: int) -> m.Departure:
    _require(value in _DEPARTURES_BACK, f"unknown departure {value}")
    return _DEPARTURES_BACK[value]


def _kind(value: int) -> m.ChangeKind:
    _require(value in _KINDS_BACK, f"unknown kind of change {value}")
    return _KINDS_BACK[value]


def _endpoints(values: Any) -> tuple[m.Endpoint, ...]:
    _require(len(values) <= MAX_ENDPOINTS, f"more than {MAX_ENDPOINTS} endpoints")
    for value in values:
        _require(0 < value.port < 65536, f"port {value.port}")
    return tuple(m.Endpoint(host=_name(v.host, "a host"), port=v.port) for v in values)


def _pb_endpoints(endpoints: Iterable[m.Endpoint]) -> list[pb.Endpoint]:
    return [pb.Endpoint(host=endpoint.host, port=endpoint.port) for endpoint in endpoints]


def _info(value: Any) -> m.PeerInfo:
    return m.PeerInfo(
        id=_peer_id(value.id),
        island=_name(value.island, "an island"),
        order=value.order,
        endpoints=_endpoints(value.endpoints),
    )


def pb_info(info: m.PeerInfo) -> pb.PeerInfo:
    """A peer's entry in a view, a list of peers or a status."""
    return pb.PeerInfo(
        id=info.id,
        island=info.island,
        order=info.order,
        endpoints=_pb_endpoints(info.endpoints),
    )


def _infos(values: Any) -> tuple[m.PeerInfo, ...]:
    _require(len(values) <= MAX_PEERS, f"more than {MAX_PEERS} peers")
    return tuple(_info(value) for value in values)


def _report(value: Any) -> m.Report:
    for rate in (value.tokens_per_s, value.sync_s):
        _require(math.isfinite(rate) and rate >= 0, "a rate or a time that is no number")
    _require(value.metrics_port < 65536, f"port {value.metrics_port}")
    return m.Report(
        round=value.round,
        loss=value.loss,
        tokens=value.tokens,
        tokens_per_s=value.tokens_per_s,
        sync_s=value.sync_s,
        sent_bytes=value.sent_bytes,
        received_bytes=value.received_bytes,
        digest=_text(value.digest, MAX_NAME, "a digest"),
        phase=_text(value.phase, MAX_NAME, "a phase"),
        validation_loss=value.validation_loss,
        contributed=value.contributed,
        metrics_port=value.metrics_port,
        epoch=value.epoch,
    )


def pb_report(report: m.Report) -> pb.Report:
    """What a peer reports, field by field."""
    return pb.Report(**{name: getattr(report, name) for name in m.Report.__slots__})


# --- peer to coordinator --------------------------------------------------------------------------


def _progress(values: Any) -> dict[int, m.Counters]:
    _require(len(values) <= MAX_CHANNELS, f"more than {MAX_CHANNELS} channels")
    progress = {
        v.channel: m.Counters(started=v.started, done=v.done, committed=v.committed) for v in values
    }
    _require(len(progress) == len(values), "a channel that is named twice")
    return progress


_FROM_PEER: dict[str, Callable[[Any], m.PeerMessage]] = {
    "register": lambda v: m.Register(
        protocol_version=v.protocol_version,
        software_version=_text(v.software_version, MAX_NAME, "a version"),
        job=_name(v.job, "a job"),
        peer=_peer_id(v.peer_id),
        island=_name(v.island, "an island"),
        installed_epoch=v.installed_epoch,
    ),
    "listening": lambda v: m.Listening(endpoints=_endpoints(v.endpoints)),
    "heartbeat": lambda v: m.Heartbeat(),
    "linked": lambda v: m.Linked(peers=_peer_ids(v.peer_ids)),
    "ready": lambda v: m.Ready(),
    "holding": lambda v: m.Holding(),
    "fenced": lambda v: m.Fenced(attempt=v.attempt, epoch=v.epoch, progress=_progress(v.progress)),
    "installed": lambda v: m.Installed(epoch=v.epoch),
    "suspect": lambda v: m.Suspect(
        peer=_peer_id(v.peer_id),
        reason=_departure(v.reason),
        message=_text(v.message, MAX_TEXT, "a message"),
    ),
    "leave": lambda v: m.Leave(reason=_departure(v.reason)),
    "report": _report,
}


def peer_message_from_pb(message: pb.PeerMessage) -> m.PeerMessage:
    """Raises MalformedMessage."""
    body = message.WhichOneof("body")
    if body is None:
        raise MalformedMessage("an empty or unknown message")
    return _FROM_PEER[body](getattr(message, body))


def peer_message_to_pb(message: m.PeerMessage) -> pb.PeerMessage:
    """What a peer says, for the wire."""
    match message:
        case m.Register():
            return pb.PeerMessage(
                register=pb.Register(
                    protocol_version=message.protocol_version,
                    software_version=message.software_version,
                    job=message.job,
                    peer_id=message.peer,
                    island=message.island,
                    installed_epoch=message.installed_epoch,
                )
            )
        case m.Listening(endpoints=endpoints):
            return pb.PeerMessage(listening=pb.Listening(endpoints=_pb_endpoints(endpoints)))
        case m.Heartbeat():
            return pb.PeerMessage(heartbeat=pb.Heartbeat())
        case m.Linked(peers=peers):
            return pb.PeerMessage(linked=pb.Linked(peer_ids=sorted(peers)))
        case m.Ready():
            return pb.PeerMessage(ready=pb.Ready())
        case m.Holding():
            return pb.PeerMessage(holding=pb.Holding())
        case m.Fenced(attempt=attempt, epoch=epoch, progress=progress):
            channels = [
                pb.ChannelProgress(
                    channel=channel, started=c.started, done=c.done, committed=c.committed
                )
                for channel, c in sorted(progress.items())
            ]
            return pb.PeerMessage(
                fenced=pb.FencedReply(attempt=attempt, epoch=epoch, progress=channels)
            )
        case m.Installed(epoch=epoch):
            return pb.PeerMessage(installed=pb.InstalledReply(epoch=epoch))
        case m.Suspect(peer=peer, reason=reason, message=text):
            return pb.PeerMessage(
                suspect=pb.Suspect(
                    peer_id=peer, reason=_DEPARTURES[reason], message=text[:MAX_TEXT]
                )
            )
        case m.Leave(reason=reason):
            return pb.PeerMessage(leave=pb.Leave(reason=_DEPARTURES[reason]))
        case m.Report():
            return pb.PeerMessage(report=pb_report(message))
        case _:
            assert_never(message)


# --- coordinator to peer --------------------------------------------------------------------------


def _welcome(value: Any) -> m.Welcome:
    _require(len(value.secret) == SECRET_BYTES, f"a secret of {len(value.secret)} bytes")
    _require(0.001 <= value.heartbeat_s <= 3600, f"a heartbeat of {value.heartbeat_s} s")
    return m.Welcome(
        order=value.order,
        secret=value.secret,
        heartbeat_s=value.heartbeat_s,
        min_islands=value.min_islands,
    )


def _install(value: Any) -> m.Install:
    _require(len(value.starts) <= MAX_CHANNELS, f"more than {MAX_CHANNELS} channels")
    return m.Install(
        view=m.View(epoch=value.view.epoch, members=_infos(value.view.members)),
        kind=_kind(value.kind),
        starts={start.channel: start.sequence for start in value.starts},
        holders=_peer_ids(value.holders),
    )


_FROM_COORDINATOR: dict[str, Callable[[Any], m.CoordinatorMessage]] = {
    "welcome": _welcome,
    "peers": lambda v: m.Peers(peers=_infos(v.peers), holders=_peer_ids(v.holders)),
    "fence": lambda v: m.Fence(attempt=v.attempt, kind=_kind(v.kind)),
    "install": _install,
    "expelled": lambda v: m.Expelled(
        reason=_departure(v.reason), message=_text(v.message, MAX_TEXT, "a message")
    ),
    "refused": lambda v: m.Refused(message=_text(v.message, MAX_TEXT, "a message")),
    "stop": lambda v: m.StopNotice(message=_text(v.message, MAX_TEXT, "a message")),
    "heartbeat": lambda v: m.Heartbeat(),
}


def coordinator_message_from_pb(message: pb.CoordinatorMessage) -> m.CoordinatorMessage:
    """Raises MalformedMessage."""
    body = message.WhichOneof("body")
    if body is None:
        raise MalformedMessage("an empty or unknown message")
    return _FROM_COORDINATOR[body](getattr(message, body))


def coordinator_message_to_pb(message: m.CoordinatorMessage) -> pb.CoordinatorMessage:
    """What the coordinator says, for the wire."""
    match message:
        case m.Welcome():
            return pb.CoordinatorMessage(
                welcome=pb.Welcome(
                    order=message.order,
                    secret=message.secret,
                    heartbeat_s=message.heartbeat_s,
                    min_islands=message.min_islands,
                )
            )
        case m.Peers(peers=peers, holders=holders):
            infos = [pb_info(info) for info in peers]
            return pb.CoordinatorMessage(peers=pb.Peers(peers=infos, holders=sorted(holders)))
        case m.Fence(attempt=attempt, kind=kind):
            return pb.CoordinatorMessage(fence=pb.Fence(attempt=attempt, kind=_KINDS[kind]))
        case m.Install(view=view, kind=kind, starts=starts, holders=holders):
            return pb.CoordinatorMessage(
                install=pb.Install(
                    view=pb.View(epoch=view.epoch, members=[pb_info(i) for i in view.members]),
                    kind=_KINDS[kind],
                    starts=[
                        pb.ChannelStart(channel=channel, sequence=sequence)
                        for channel, sequence in sorted(starts.items())
                    ],
                    holders=sorted(holders),
                )
            )
        case m.Expelled(reason=reason, message=text):
            return pb.CoordinatorMessage(
                expelled=pb.Expelled(reason=_DEPARTURES[reason], message=text[:MAX_TEXT])
            )
        case m.Refused(message=text):
            return pb.CoordinatorMessage(refused=pb.Refused(message=text[:MAX_TEXT]))
        case m.StopNotice(message=text):
            return pb.CoordinatorMessage(stop=pb.StopNotice(message=text[:MAX_TEXT]))
        case m.Heartbeat():
            return pb.CoordinatorMessage(heartbeat=pb.Heartbeat())
        case _:
            assert_never(message)


# --- operators ------------------------------------------------------------------------------------


def status_to_pb(status: events.JobStatus, uptime_s: float) -> pb.StatusReply:
    """The answer to Status."""
    peers = []
    for peer in status.peers:
        entry = pb.PeerStatus(
            info=pb_info(peer.info), state=peer.state, heard_ago_s=peer.heard_ago_s
        )
        if peer.report is not None:
            entry.report.CopyFrom(pb_report(peer.report))
        peers.append(entry)
    return pb.StatusReply(
        job=status.job,
        epoch=status.epoch,
        members=list(status.members),
        peers=peers,
        round=status.round,
        loss=status.loss,
        parity_failures=status.parity_failures,
        uptime_s=uptime_s,
        min_islands=status.min_islands,
    )


def job_event_to_pb(event: events.JobEvent, unix_minus_machine_s: float) -> pb.JobEvent:
    """An event for Watch; the machine's clock becomes Unix time."""
    return pb.JobEvent(
        number=event.number,
        time_s=event.at_s + unix_minus_machine_s,
        kind=event.kind,
        island=event.island,
        peer_id=event.peer,
        message=event.message[:MAX_TEXT],
        epoch=event.epoch,
        round=event.round,
        loss=event.loss,
        reason=_DEPARTURES[event.departure] if event.departure else pb.DEPARTURE_UNSPECIFIED,
    )
