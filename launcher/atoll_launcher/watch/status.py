"""`atoll status`: what a job looks like now, for people and as JSON."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from typing import TYPE_CHECKING

from atoll.pb import control_pb2 as pb
from atoll.trust.identity import Identity
from atoll_launcher.watch.observer import departure_name, fetch_status
from atoll_launcher.watch.plain import decimal, scaled, scaled_bytes

if TYPE_CHECKING:
    from rich.table import Table

PIPE_WIDTH = 160
GONE = 8
"""Islands that have left, shown to people."""


def show_status(address: str, *, as_json: bool, identity: Identity | None = None) -> None:
    """Print the status of the job at `address`. Raises LauncherError when there is none."""
    status = asyncio.run(fetch_status(address, identity))
    if as_json:
        print(json.dumps(status_object(status), indent=2))
    else:
        _print_table(address, status)


def _rank(status: pb.StatusReply, peer: pb.PeerStatus) -> int | None:
    """An island's place in the view; None outside of it."""
    members = list(status.members)
    is_member = peer.info.id in members
    return members.index(peer.info.id) // max(1, status.shards) if is_member else None


def _islands(status: pb.StatusReply) -> list[list[pb.PeerStatus]]:
    """The peers by island, each island's by shard, the oldest island first."""
    found: dict[str, list[pb.PeerStatus]] = {}
    for peer in sorted(status.peers, key=lambda peer: peer.info.order):
        found.setdefault(peer.info.island, []).append(peer)
    return [sorted(peers, key=lambda peer: peer.info.shard) for peers in found.values()]


def _island_object(status: pb.StatusReply, peers: list[pb.PeerStatus]) -> dict[str, object]:
    return {
        "island": peers[0].info.island,
        "rank": _rank(status, peers[0]),
        "shards": {peer.info.shard: peer.state for peer in peers},
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def status_object(status: pb.StatusReply) -> dict[str, object]:
    """Return the status as JSON has it: names of control.proto, ids in hex, NaN as null."""
    peers: list[dict[str, object]] = []
    for peer in status.peers:
        report = {field.name: getattr(peer.report, field.name) for field in _REPORT_FIELDS}
        peers.append(
            {
                "id": peer.info.id.hex(),
                "island": peer.info.island,
                "shard": peer.info.shard,
                "order": peer.info.order,
                "endpoints": [f"{e.host}:{e.port}" for e in peer.info.endpoints],
                "rank": _rank(status, peer),
                "state": peer.state,
                "heard_ago_s": peer.heard_ago_s,
                "report": {
                    name: _known(value) if isinstance(value, float) else value
                    for name, value in report.items()
                },
            }
        )
    return {
        "job": status.job,
        "epoch": status.epoch,
        "members": [member.hex() for member in status.members],
        "round": status.round,
        "loss": _known(status.loss),
        "parity_failures": status.parity_failures,
        "uptime_s": status.uptime_s,
        "min_islands": status.min_islands,
        "shards": status.shards,
        "islands": [_island_object(status, island) for island in _islands(status)],
        "standby": status.standby,
        "seen_islands": list(status.seen_islands),
        "departed": [
            {
                "island": one.island,
                "reason": departure_name(one.reason),
                "message": one.message,
                "ago_s": one.ago_s,
            }
            for one in status.departed
        ],
        "relayed": [
            dict(zip(("one", "other", "relay"), names, strict=True)) for names in _relayed(status)
        ],
        "leader": status.leader,
        "leader_changes": status.leader_changes,
        "store": status.store,
        "peers": peers,
    }


def _relayed(status: pb.StatusReply) -> list[tuple[str, str, str]]:
    """Names of islands that reach each other through a third one, which is the last."""
    names = {peer.info.id: peer.info.island for peer in status.peers}
    entries = [(r.one, r.other, r.relay) for r in status.relayed]
    named = [tuple(names.get(peer, peer.hex()[:8]) for peer in entry) for entry in entries]
    return sorted({(one, other, relay) for one, other, relay in named})


_REPORT_FIELDS = pb.Report.DESCRIPTOR.fields


def _print_table(address: str, status: pb.StatusReply) -> None:
    from rich.console import Console

    # A pipe has no width; rich would cut at 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    parity = f"   PARITY FAILURES {status.parity_failures}" if status.parity_failures else ""
    console.print(
        f"job {status.job} at {address}   view {status.epoch}   round {status.round}   "
        f"loss {decimal(status.loss, 3)}   up {status.uptime_s:.0f} s{parity}"
    )
    if status.store.startswith("etcd"):
        changes = f", {status.leader_changes} changes seen" if status.leader_changes else ""
        console.print(f"led by {status.leader or 'nobody'}{changes}   store {status.store}")
    if not status.peers:
        console.print("no islands yet" if not status.departed else "no islands")
    else:
        console.print(_table(status))
    for one, other, relay in _relayed(status):
        console.print(f"{other} reaches {one} through {relay}")
    there = {peer.info.island for peer in status.peers}
    for gone in reversed([one for one in status.departed if one.island not in there][-GONE:]):
        reason = departure_name(gone.reason)
        console.print(f"{gone.island} left {gone.ago_s:.0f} s ago ({reason}): {gone.message}")


def _table(status: pb.StatusReply) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("island", no_wrap=True)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("round", "loss", "tokens/s", "sync", "sent", "heard", "metrics"):
        table.add_column(name, justify="right", no_wrap=True)
    for peers in _islands(status):
        table.add_row(*_row(status, peers))
    return table


def _row(status: pb.StatusReply, peers: list[pb.PeerStatus]) -> list[str]:
    """An island's line: of several shards, the sums, the slowest, and what differs."""
    reports = [peer.report for peer in peers]
    rank = _rank(status, peers[0])
    losses = [report.loss for report in reports if math.isfinite(report.loss)]
    return [
        peers[0].info.island,
        "-" if rank is None else str(rank),
        _states(status, peers),
        str(min(report.round for report in reports)),
        decimal(sum(losses) / len(losses) if losses else math.nan, 3),
        scaled(sum(report.tokens_per_s for report in reports)),
        f"{max(report.sync_s for report in reports):.2f} s",
        scaled_bytes(sum(report.sent_bytes for report in reports)),
        f"{max(peer.heard_ago_s for peer in peers):.1f} s ago",
        " ".join(f":{r.metrics_port}" for r in reports if r.metrics_port) or "-",
    ]


def _states(status: pb.StatusReply, peers: list[pb.PeerStatus]) -> str:
    """The shards' common state, or each one's; and how many of them are there, if not all."""
    shown = [
        p.state if p.state != "member" or not p.report.phase else p.report.phase for p in peers
    ]
    text = shown[0] if len(set(shown)) == 1 else " ".join(shown)
    count = max(1, status.shards)
    return text if count == 1 else f"{text} ({len(peers)} of {count} shards)"
