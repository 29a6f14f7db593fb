"""What the page is told, as JSON values: the job now, its rounds, its events, its links.

Pure functions. Everything is bounded by the number of islands and by what is kept of the past.
Numbers that are not known are null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from atoll.membership.events import JobEvent, JobStatus, PeerStatus
from atoll.membership.messages import LinkFigures, PeerId
from atoll.watching.history import Point, parts_of_round

Json = dict[str, object]
MOST_TEXT = 300


def known(value: float, digits: int = 6) -> float | None:
    """The number to so many significant digits; None for NaN and infinities."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def state(status: JobStatus, *, uptime_s: float, unix_s: float) -> Json:
    """The job and its islands: members by rank, then those that are no members, by name."""
    ranks = {peer: rank for rank, peer in enumerate(status.members)}
    islands: dict[str, list[PeerStatus]] = {}
    for peer in sorted(status.peers, key=lambda p: (ranks.get(p.info.id, math.inf), p.info.order)):
        islands.setdefault(peer.info.island, []).append(peer)
    shards = max(1, status.shards)
    return {
        "job": status.job,
        "unix_s": round(unix_s, 2),
        "uptime_s": round(uptime_s, 1),
        "epoch": status.epoch,
        "round": status.round,
        "loss": known(status.loss),
        "members": len(status.members) // shards,
        "min_islands": status.min_islands,
        "parity_failures": status.parity_failures,
        "islands": [_island(name, peers, ranks, shards) for name, peers in islands.items()],
    }


def _island(
    name: str, peers: Sequence[PeerStatus], ranks: Mapping[PeerId, int], shards: int
) -> Json:
    """Of several shards: sums of what adds up, else the slowest."""
    reports = [peer.report for peer in peers if peer.report is not None]
    first = peers[0]
    rank = ranks.get(first.info.id)
    parts = [parts_of_round(report) for report in reports] or [(0.0, 0.0)]
    compute_s, wait_s = max(parts, key=sum)
    losses = [report.loss for report in reports if math.isfinite(report.loss)]
    phase = reports[0].phase if reports and first.state == "member" else first.state
    return {
        "name": name,
        "rank": None if rank is None else rank // shards,
        "state": phase if first.connected else "away",
        "round": min((report.round for report in reports), default=0),
        "loss": known(sum(losses) / len(losses)) if losses else None,
        "tokens_per_s": known(sum(report.tokens_per_s for report in reports), 4),
        "compute_s": known(compute_s, 4),
        "wait_s": known(wait_s, 4),
        "sent_bytes": sum(report.sent_bytes for report in reports),
        "received_bytes": sum(report.received_bytes for report in reports),
        "heard_ago_s": round(max(peer.heard_ago_s for peer in peers), 1),
        "contributed": all(report.contributed for report in reports) if reports else False,
    }


def point(one: Point) -> list[float | None]:
    """[Unix time, round, loss, tokens a second, islands]"""
    return [
        round(one.unix_s, 2),
        one.round,
        known(one.loss),
        known(one.tokens_per_s, 4),
        one.islands,
    ]


def event(one: JobEvent, unix_s: float) -> Json:
    """Something that happened, with its reason."""
    return {
        "number": one.number,
        "unix_s": round(unix_s, 2),
        "kind": one.kind,
        "island": one.island,
        "reason": one.departure.name.lower() if one.departure is not None else "",
        "text": one.message[:MOST_TEXT],
    }


def links(status: JobStatus, figures: Mapping[tuple[PeerId, PeerId], LinkFigures]) -> Json:
    """Bytes a second and seconds of round trip, from island to island, in the order of `islands`;
    null where nothing was measured. Of several shards, those of the first."""
    first = [peer for peer in status.peers if peer.info.shard == 0]
    ranks = {peer: rank for rank, peer in enumerate(status.members)}
    first.sort(key=lambda peer: (ranks.get(peer.info.id, math.inf), peer.info.order))
    ids = [peer.info.id for peer in first]
    rows = [[figures.get((one, other)) for other in ids] for one in ids]
    return {
        "islands": [peer.info.island for peer in first],
        "rate_bytes_per_s": [_column(row, "rate_bytes_per_s") for row in rows],
        "rtt_s": [_column(row, "rtt_s") for row in rows],
    }


def _column(row: Iterable[LinkFigures | None], field: str) -> list[float | None]:
    return [None if found is None else known(getattr(found, field), 3) for found in row]
