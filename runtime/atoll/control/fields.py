"""What several protobuf messages have in common, to values and back, and the limits of the format.

Thread: any; pure functions. What breaks a rule raises MalformedMessage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from atoll.membership import messages as m
from atoll.pb import control_pb2 as pb

MAX_PEERS = 4096  # of one view, as on the data plane
MAX_SHARDS = 4096
MAX_LISTED = 65_536  # of all rings together
MAX_CHANNELS = 4096
MAX_ENDPOINTS = 16
MAX_NAME = 256
MAX_TEXT = 4096
ID_BYTES = 16
SECRET_BYTES = 32


class MalformedMessage(ValueError):
    """A message that breaks the format's rules; its text says which."""


DEPARTURES = {
    m.Departure.FINISHED: pb.DEPARTURE_FINISHED,
    m.Departure.DRAINED: pb.DEPARTURE_DRAINED,
    m.Departure.CRASHED: pb.DEPARTURE_CRASHED,
    m.Departure.SILENT: pb.DEPARTURE_SILENT,
    m.Departure.UNREACHABLE: pb.DEPARTURE_UNREACHABLE,
    m.Departure.PROTOCOL: pb.DEPARTURE_PROTOCOL,
    m.Departure.STOPPED: pb.DEPARTURE_STOPPED,
    m.Departure.SHARD_LOST: pb.DEPARTURE_SHARD_LOST,
    m.Departure.INCOMPLETE: pb.DEPARTURE_INCOMPLETE,
    m.Departure.REVOKED: pb.DEPARTURE_REVOKED,
    m.Departure.KILLED: pb.DEPARTURE_KILLED,
}
KINDS = {m.ChangeKind.DRAIN: pb.CHANGE_DRAIN, m.ChangeKind.ABORT: pb.CHANGE_ABORT}
DEPARTURES_BACK = {int(number): reason for reason, number in DEPARTURES.items()}
KINDS_BACK = {int(number): kind for kind, number in KINDS.items()}


def require(condition: bool, what: str) -> None:
    """Raises MalformedMessage with `what` unless the condition holds."""
    if not condition:
        raise MalformedMessage(what)


def peer_id(value: bytes) -> m.PeerId:
    """A peer's id."""
    require(len(value) == ID_BYTES, f"a peer id of {len(value)} bytes instead of {ID_BYTES}")
    return value


def peer_ids(values: Any) -> frozenset[m.PeerId]:
    """Ids of at most MAX_PEERS peers, each once."""
    require(len(values) <= MAX_PEERS, f"more than {MAX_PEERS} peers")
    return frozenset(peer_id(value) for value in values)


def text(value: str, limit: int, what: str) -> str:
    """`what`, of at most `limit` characters."""
    require(len(value) <= limit, f"{what} of {len(value)} characters, at most {limit}")
    return value


def name(value: str, what: str) -> str:
    """`what`: printable, not empty, at most MAX_NAME characters."""
    require(bool(value) and value.isprintable(), f"{what} is empty or not printable")
    return text(value, MAX_NAME, what)


def departure(value: int) -> m.Departure:
    """A reason from the closed list."""
    require(value in DEPARTURES_BACK, f"unknown departure {value}")
    return DEPARTURES_BACK[value]


def kind(value: int) -> m.ChangeKind:
    """Drain or abort."""
    require(value in KINDS_BACK, f"unknown kind of change {value}")
    return KINDS_BACK[value]


def endpoints(values: Any) -> tuple[m.Endpoint, ...]:
    """Where a peer listens: at most MAX_ENDPOINTS."""
    require(len(values) <= MAX_ENDPOINTS, f"more than {MAX_ENDPOINTS} endpoints")
    for value in values:
        require(0 < value.port < 65536, f"port {value.port}")
    return tuple(m.Endpoint(host=name(v.host, "a host"), port=v.port) for v in values)


def pb_endpoints(endpoints: Iterable[m.Endpoint]) -> list[pb.Endpoint]:
    """Where a peer listens, for the wire."""
    return [pb.Endpoint(host=endpoint.host, port=endpoint.port) for endpoint in endpoints]


def shard(value: int) -> int:
    """A shard index."""
    require(value < MAX_SHARDS, f"shard {value}, of at most {MAX_SHARDS}")
    return value


def shards(value: int) -> int:
    """How many shards an island has."""
    require(value <= MAX_SHARDS, f"{value} shards, at most {MAX_SHARDS}")
    return max(1, value)


def info(value: Any) -> m.PeerInfo:
    """A peer's entry in a view or a list of peers."""
    return m.PeerInfo(
        id=peer_id(value.id),
        island=name(value.island, "an island"),
        order=value.order,
        endpoints=endpoints(value.endpoints),
        shard=shard(value.shard),
    )


def pb_info(info: m.PeerInfo) -> pb.PeerInfo:
    """A peer's entry in a view, a list of peers or a status."""
    return pb.PeerInfo(
        id=info.id,
        island=info.island,
        order=info.order,
        endpoints=pb_endpoints(info.endpoints),
        shard=info.shard,
    )


def infos(values: Any) -> tuple[m.PeerInfo, ...]:
    """At most MAX_LISTED entries."""
    require(len(values) <= MAX_LISTED, f"more than {MAX_LISTED} peers")
    return tuple(info(value) for value in values)


def relayed(values: Any) -> tuple[m.Relayed, ...]:
    """At most MAX_PEERS pairs, each with a third peer."""
    require(len(values) <= MAX_PEERS, f"more than {MAX_PEERS} relayed pairs")
    found = tuple(
        m.Relayed(one=peer_id(v.one), other=peer_id(v.other), relay=peer_id(v.relay))
        for v in values
    )
    for entry in found:
        three = {entry.one, entry.other, entry.relay}
        require(len(three) == 3, "a relayed pair of fewer than three peers")
    return found


def pb_relayed(relayed: m.Relayed) -> pb.Relayed:
    """A relayed pair, for the wire."""
    return pb.Relayed(one=relayed.one, other=relayed.other, relay=relayed.relay)


def report(value: Any) -> m.Report:
    """What a peer reports; rates and times are finite and not negative."""
    for rate in (value.tokens_per_s, value.sync_s, value.round_s):
        require(math.isfinite(rate) and rate >= 0, "a rate or a time that is no number")
    require(value.metrics_port < 65536, f"port {value.metrics_port}")
    return m.Report(
        round=value.round,
        loss=value.loss,
        tokens=value.tokens,
        tokens_per_s=value.tokens_per_s,
        sync_s=value.sync_s,
        sent_bytes=value.sent_bytes,
        received_bytes=value.received_bytes,
        digest=text(value.digest, MAX_NAME, "a digest"),
        phase=text(value.phase, MAX_NAME, "a phase"),
        validation_loss=value.validation_loss,
        contributed=value.contributed,
        metrics_port=value.metrics_port,
        epoch=value.epoch,
        notice_number=value.notice_number,
        notice_kind=text(value.notice_kind, MAX_NAME, "a notice's kind"),
        notice=text(value.notice, MAX_TEXT, "a notice"),
        round_s=value.round_s,
    )


def pb_report(report: m.Report) -> pb.Report:
    """What a peer reports, field by field."""
    return pb.Report(**{name: getattr(report, name) for name in m.Report.__slots__})
