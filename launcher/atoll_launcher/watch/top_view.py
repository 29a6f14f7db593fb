"""What `atoll top` draws: a pure function of what is known of a job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from atoll.pb import control_pb2 as pb
from atoll_launcher.watch.dashboard import Dashboard
from atoll_launcher.watch.links import Link
from atoll_launcher.watch.live import STYLES, clock, sparkline
from atoll_launcher.watch.observer import member_names
from atoll_launcher.watch.plain import count, decimal, scaled, scaled_bytes

SHOWN_LINKS = 5
AROUND = 12
"""Lines that are neither islands nor events: the head, titles, gaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The coordinator's last word, the events so far, what was measured of links, and the bytes
    per second that each peer sent between the last two words."""

    dashboard: Dashboard
    status: pb.StatusReply
    links: Sequence[Link] = ()
    sent_bytes_per_s: Mapping[bytes, float] = field(default_factory=dict)
    away: bool = False


def picture(known: Known, *, width: int, height: int) -> RenderableType:
    """Return the view for a terminal of so many columns and lines; the slowest links, and as many
    islands and events as there is room for."""
    islands = _islands(known.status)
    links = sorted(known.links, key=lambda link: link.rate_bytes_per_s)[:SHOWN_LINKS]
    room = max(2, height - AROUND - len(links))
    shown = islands[: max(1, room - min(4, len(known.dashboard.lines)))]
    lines = known.dashboard.lines[-max(1, room - len(shown)) :]
    parts: list[RenderableType] = [_head(known, width), _table(known, shown)]
    if len(shown) < len(islands):
        parts.append(Text(f"and {count(len(islands) - len(shown), 'island')} more", style="dim"))
    if links:
        parts += [Text(""), _links(links)]
    parts += [Text(""), Text("\n".join(lines), style="dim", no_wrap=True, overflow="ellipsis")]
    return Group(*parts)


def _head(known: Known, width: int) -> RenderableType:
    status, losses = known.status, known.dashboard.losses
    tokens = sum(peer.report.tokens_per_s for peer in status.peers)
    facts = [
        f"round {status.round}",
        f"view {status.epoch}",
        count(len(member_names(status)), "member"),
        f"{scaled(tokens)} tokens/s",
        f"{scaled_bytes(sum(known.sent_bytes_per_s.values()))}/s sent",
        f"up {clock(status.uptime_s)}",
    ]
    text = Text(no_wrap=True, overflow="ellipsis")
    if known.away:
        text.append("THE COORDINATOR DOES NOT ANSWER   ", style="bold red")
    if status.parity_failures:
        text.append(f"PARITY FAILURES {status.parity_failures}   ", style="bold red")
    text.append("   ".join(facts))
    text.append(f"\nloss {decimal(status.loss, 3)} ", style="bold")
    text.append(sparkline(losses, min(60, width - 20)), style="cyan")
    title = f"atoll  {status.job}  {known.dashboard.address}"
    return Panel(text, title=title, title_align="left", subtitle="q: end", subtitle_align="right")


def _islands(status: pb.StatusReply) -> list[list[pb.PeerStatus]]:
    """The peers by island: members by rank, then the others."""
    ranks = {member: rank for rank, member in enumerate(status.members)}
    found: dict[str, list[pb.PeerStatus]] = {}
    for peer in sorted(
        status.peers, key=lambda peer: (ranks.get(peer.info.id, len(ranks)), peer.info.order)
    ):
        found.setdefault(peer.info.island, []).append(peer)
    return list(found.values())


def _table(known: Known, islands: Sequence[Sequence[pb.PeerStatus]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("island", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("round", "loss", "tokens/s", "sync", "sent/s", "heard"):
        table.add_column(name, justify="right", no_wrap=True)
    for peers in islands:
        reports = [peer.report for peer in peers]
        losses = [report.loss for report in reports if math.isfinite(report.loss)]
        state = peers[0].state
        if state == "member":
            state = peers[0].report.phase or state
        table.add_row(
            peers[0].info.island,
            Text(state, style=STYLES.get(state, "yellow")),
            str(min(report.round for report in reports)),
            decimal(sum(losses) / len(losses) if losses else math.nan, 3),
            scaled(sum(report.tokens_per_s for report in reports)),
            f"{max(report.sync_s for report in reports):.2f} s",
            scaled_bytes(sum(known.sent_bytes_per_s.get(p.info.id, 0.0) for p in peers)),
            f"{max(peer.heard_ago_s for peer in peers):.1f} s ago",
        )
    return table


def _links(links: Sequence[Link]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("slowest links", no_wrap=True)
    table.add_column("rate", justify="right", no_wrap=True)
    table.add_column("round trip", justify="right", no_wrap=True)
    for link in links:
        table.add_row(
            f"{link.source} -> {link.target}",
            f"{scaled_bytes(link.rate_bytes_per_s)}/s",
            f"{link.rtt_s * 1000:.1f} ms",
        )
    return table
