"""Messages in protobuf to values and back. What comes from the wire is checked here and in fields.

Thread: any; pure functions. A message that breaks a rule raises MalformedMessage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from atoll.control import fields
from atoll.control.fields import MalformedMessage
from atoll.membership import messages as m
from atoll.pb import control_pb2 as pb

MAX_MESSAGE_BYTES = 4 << 20

# --- peer to coordinator --------------------------------------------------------------------------


def _progress(values: Any) -> dict[int, m.Counters]:
    fields.require(len(values) <= fields.MAX_CHANNELS, f"more than {fields.MAX_CHANNELS} channels")
    progress = {
        v.channel: m.Counters(started=v.started, done=v.done, committed=v.committed) for v in values
    }
    fields.require(len(progress) == len(values), "a channel that is named twice")
    return progress


def _figures(values: Any) -> dict[m.PeerId, m.LinkFigures]:
    fields.require(len(values) <= fields.MAX_PEERS, f"more than {fields.MAX_PEERS} links")
    figures = {}
    for v in values:
        for number in (v.rate_bytes_per_s, v.rtt_s):
            fields.require(
                0 < number < math.inf, "a link's rate or round trip that is no such thing"
            )
        figures[fields.peer_id(v.peer_id)] = m.LinkFigures(
            rate_bytes_per_s=v.rate_bytes_per_s, rtt_s=v.rtt_s
        )
    fields.require(len(figures) == len(values), "a link that is named twice")
    return figures


_FROM_PEER: dict[str, Callable[[Any], m.PeerMessage]] = {
    "register": lambda v: m.Register(
        protocol_version=v.protocol_version,
        software_version=fields.text(v.software_version, fields.MAX_NAME, "a version"),
        job=fields.name(v.job, "a job"),
        peer=fields.peer_id(v.peer_id),
        island=fields.name(v.island, "an island"),
        installed_epoch=v.installed_epoch,
        shard=fields.shard(v.shard),
        shards=fields.shards(v.shards),
    ),
    "listening": lambda v: m.Listening(endpoints=fields.endpoints(v.endpoints)),
    "heartbeat": lambda v: m.Heartbeat(),
    "linked": lambda v: m.Linked(peers=fields.peer_ids(v.peer_ids)),
    "linked_more": lambda v: m.LinkedMore(
        added=fields.peer_ids(v.added), removed=fields.peer_ids(v.removed)
    ),
    "ready": lambda v: m.Ready(),
    "holding": lambda v: m.Holding(),
    "fenced": lambda v: m.Fenced(attempt=v.attempt, epoch=v.epoch, progress=_progress(v.progress)),
    "installed": lambda v: m.Installed(epoch=v.epoch),
    "suspect": lambda v: m.Suspect(
        peer=fields.peer_id(v.peer_id),
        reason=fields.departure(v.reason),
        message=fields.text(v.message, fields.MAX_TEXT, "a message"),
        certain=v.certain,
    ),
    "unreached": lambda v: m.Unreached(
        peer=fields.peer_id(v.peer_id), relay=fields.peer_id(v.relay) if v.relay else b""
    ),
    "leave": lambda v: m.Leave(reason=fields.departure(v.reason)),
    "report": fields.report,
    "links": lambda v: m.Links(number=v.number, figures=_figures(v.figures)),
    "measure_request": lambda v: m.MeasureRequest(),
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
                    shard=message.shard,
                    shards=message.shards,
                )
            )
        case m.Listening(endpoints=endpoints):
            return pb.PeerMessage(listening=pb.Listening(endpoints=fields.pb_endpoints(endpoints)))
        case m.Heartbeat():
            return pb.PeerMessage(heartbeat=pb.Heartbeat())
        case m.Linked(peers=peers):
            return pb.PeerMessage(linked=pb.Linked(peer_ids=sorted(peers)))
        case m.LinkedMore(added=added, removed=removed):
            more = pb.LinkedMore(added=sorted(added), removed=sorted(removed))
            return pb.PeerMessage(linked_more=more)
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
        case m.Suspect(peer=peer, reason=reason, message=text, certain=certain):
            return pb.PeerMessage(
                suspect=pb.Suspect(
                    peer_id=peer,
                    reason=fields.DEPARTURES[reason],
                    message=text[: fields.MAX_TEXT],
                    certain=certain,
                )
            )
        case m.Unreached(peer=peer, relay=relay):
            return pb.PeerMessage(unreached=pb.Unreached(peer_id=peer, relay=relay))
        case m.Leave(reason=reason):
            return pb.PeerMessage(leave=pb.Leave(reason=fields.DEPARTURES[reason]))
        case m.Report():
            return pb.PeerMessage(report=fields.pb_report(message))
        case m.Links(number=number, figures=figures):
            links = [
                pb.LinkFigures(peer_id=peer, rate_bytes_per_s=f.rate_bytes_per_s, rtt_s=f.rtt_s)
                for peer, f in sorted(figures.items())
            ]
            return pb.PeerMessage(links=pb.Links(number=number, figures=links))
        case m.MeasureRequest():
            return pb.PeerMessage(measure_request=pb.MeasureRequest())
        case _:
            assert_never(message)


# --- coordinator to peer --------------------------------------------------------------------------


def _welcome(value: Any) -> m.Welcome:
    fields.require(
        len(value.secret) == fields.SECRET_BYTES, f"a secret of {len(value.secret)} bytes"
    )
    fields.require(0.001 <= value.heartbeat_s <= 3600, f"a heartbeat of {value.heartbeat_s} s")
    return m.Welcome(
        order=value.order,
        secret=value.secret,
        heartbeat_s=value.heartbeat_s,
        min_islands=value.min_islands,
    )


def _install(value: Any) -> m.Install:
    members = fields.infos(value.view.members)
    return m.Install(
        view=m.View(epoch=value.view.epoch, members=members),
        kind=fields.kind(value.kind),
        starts=starts(value.starts),
        holders=fields.peer_ids(value.holders),
        topology=topology(value.topology, members),
    )


def starts(values: Any) -> dict[int, int]:
    """Where each channel starts."""
    fields.require(len(values) <= fields.MAX_CHANNELS, f"more than {fields.MAX_CHANNELS} channels")
    return {start.channel: start.sequence for start in values}


def topology(value: bytes, view: Sequence[m.PeerInfo]) -> bytes:
    """Of a ring of the view's peers. The core looks at the rest."""
    members = sum(not info.shard for info in view)
    fields.require(
        not value or len(value) == 4 + 8 * (members + members * members),
        f"a topology of {len(value)} bytes for {members} members",
    )
    return value


def _measure(value: Any) -> m.Measure:
    fields.require(0 < value.burst_s <= 1, f"a burst of {value.burst_s} s")
    fields.require(0 < value.slot_s <= 60, f"a slot of {value.slot_s} s")
    return m.Measure(
        number=value.number,
        epoch=value.epoch,
        fresh=fields.peer_ids(value.fresh),
        burst_s=value.burst_s,
        slot_s=value.slot_s,
    )


_FROM_COORDINATOR: dict[str, Callable[[Any], m.CoordinatorMessage]] = {
    "welcome": _welcome,
    "peers": lambda v: m.Peers(
        peers=fields.infos(v.peers),
        holders=fields.peer_ids(v.holders),
        relayed=fields.relayed(v.relayed),
    ),
    "fence": lambda v: m.Fence(attempt=v.attempt, kind=fields.kind(v.kind)),
    "install": _install,
    "measure": _measure,
    "expelled": lambda v: m.Expelled(
        reason=fields.departure(v.reason),
        message=fields.text(v.message, fields.MAX_TEXT, "a message"),
    ),
    "refused": lambda v: m.Refused(message=fields.text(v.message, fields.MAX_TEXT, "a message")),
    "stop": lambda v: m.StopNotice(message=fields.text(v.message, fields.MAX_TEXT, "a message")),
    "drain": lambda v: m.DrainNotice(message=fields.text(v.message, fields.MAX_TEXT, "a message")),
    "not_leader": lambda v: m.NotLeader(
        leader=fields.text(v.leader, fields.MAX_TEXT, "a leader"),
        message=fields.text(v.message, fields.MAX_TEXT, "a message"),
    ),
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
        case m.Peers(peers=peers, holders=holders, relayed=relayed):
            listed = pb.Peers(
                peers=[fields.pb_info(info) for info in peers],
                holders=sorted(holders),
                relayed=map(fields.pb_relayed, relayed),
            )
            return pb.CoordinatorMessage(peers=listed)
        case m.Fence(attempt=attempt, kind=kind):
            return pb.CoordinatorMessage(fence=pb.Fence(attempt=attempt, kind=fields.KINDS[kind]))
        case m.Install(view=view, kind=kind, holders=holders):
            return pb.CoordinatorMessage(
                install=pb.Install(
                    view=pb.View(
                        epoch=view.epoch, members=[fields.pb_info(i) for i in view.members]
                    ),
                    kind=fields.KINDS[kind],
                    starts=[
                        pb.ChannelStart(channel=channel, sequence=sequence)
                        for channel, sequence in sorted(message.starts.items())
                    ],
                    holders=sorted(holders),
                    topology=message.topology,
                )
            )
        case m.Measure():
            return pb.CoordinatorMessage(
                measure=pb.Measure(
                    number=message.number,
                    epoch=message.epoch,
                    fresh=sorted(message.fresh),
                    burst_s=message.burst_s,
                    slot_s=message.slot_s,
                )
            )
        case m.Expelled(reason=reason, message=text):
            return pb.CoordinatorMessage(
                expelled=pb.Expelled(
                    reason=fields.DEPARTURES[reason], message=text[: fields.MAX_TEXT]
                )
            )
        case m.Refused(message=text):
            return pb.CoordinatorMessage(refused=pb.Refused(message=text[: fields.MAX_TEXT]))
        case m.StopNotice(message=text):
            return pb.CoordinatorMessage(stop=pb.StopNotice(message=text[: fields.MAX_TEXT]))
        case m.DrainNotice(message=text):
            return pb.CoordinatorMessage(drain=pb.DrainNotice(message=text[: fields.MAX_TEXT]))
        case m.NotLeader(leader=leader, message=text):
            return pb.CoordinatorMessage(
                not_leader=pb.NotLeader(leader=leader, message=text[: fields.MAX_TEXT])
            )
        case m.Heartbeat():
            return pb.CoordinatorMessage(heartbeat=pb.Heartbeat())
        case _:
            assert_never(message)
