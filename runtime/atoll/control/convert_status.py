"""What operators ask for, in protobuf: the job's status, and its events as they come.

Thread: any; pure functions.
"""

from __future__ import annotations

from atoll.control import fields
from atoll.membership import events
from atoll.pb import control_pb2 as pb


def status_to_pb(status: events.JobStatus, *, uptime_s: float, now_s: float) -> pb.StatusReply:
    """The answer to Status."""
    peers = []
    for peer in status.peers:
        entry = pb.PeerStatus(
            info=fields.pb_info(peer.info), state=peer.state, heard_ago_s=peer.heard_ago_s
        )
        if peer.report is not None:
            entry.report.CopyFrom(fields.pb_report(peer.report))
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
        seen_islands=list(status.islands),
        shards=status.shards,
        relayed=map(fields.pb_relayed, status.relayed),
        departed=[
            pb.Departed(
                island=island,
                reason=fields.DEPARTURES[end.reason],
                message=end.message[: fields.MAX_TEXT],
                ago_s=max(0.0, now_s - end.at_s),
            )
            for island, end in status.departed.items()
        ],
    )


def job_event_to_pb(event: events.JobEvent, unix_minus_machine_s: float) -> pb.JobEvent:
    """An event for Watch; the machine's clock becomes Unix time."""
    return pb.JobEvent(
        number=event.number,
        time_s=event.at_s + unix_minus_machine_s,
        kind=event.kind,
        island=event.island,
        peer_id=event.peer,
        message=event.message[: fields.MAX_TEXT],
        epoch=event.epoch,
        round=event.round,
        loss=event.loss,
        reason=fields.DEPARTURES[event.departure] if event.departure else pb.DEPARTURE_UNSPECIFIED,
    )
