"""`atoll status`: what a job looks like now, for people and as JSON."""

from __future__ import annotations

import asyncio
import json
import math
import sys

from atoll.pb import control_pb2 as pb
from atoll_launcher.observer import fetch_status
from atoll_launcher.plain import decimal, scaled, scaled_bytes

PIPE_WIDTH = 160


def show_status(address: str, *, as_json: bool) -> None:
    """Print the status of the job at `address`. Raises LauncherError when there is none."""
    status = asyncio.run(fetch_status(address))
    if as_json:
        print(json.dumps(status_object(status), indent=2))
    else:
        _print_table(address, status)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def status_object(status: pb.StatusReply) -> dict[str, object]:
    """Return the status as JSON has it: names of control.proto, ids in hex, NaN as null."""
    peers: list[dict[str, object]] = []
    members = list(status.members)
    for peer in status.peers:
        report = {field.name: getattr(peer.report, field.name) for field in _REPORT_FIELDS}
        peers.append(
            {
                "id": peer.info.id.hex(),
                "island": peer.info.island,
                "order": peer.info.order,
                "endpoints": [f"{e.host}:{e.port}" for e in peer.info.endpoints],
                "rank": members.index(peer.info.id) if peer.info.id in members else None,
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
        "members": [member.hex() for member in members],
        "round": status.round,
        "loss": _known(status.loss),
        "parity_failures": status.parity_failures,
        "uptime_s": status.uptime_s,
        "min_islands": status.min_islands,
        "peers": peers,
    }


_REPORT_FIELDS = pb.Report.DESCRIPTOR.fields


def _print_table(address: str, status: pb.StatusReply) -> None:
    from rich.console import Console
    from rich.table import Table

    # A pipe has no width; rich would cut at 80 columns.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    parity = f"   PARITY FAILURES {status.parity_failures}" if status.parity_failures else ""
    console.print(
        f"job {status.job} at {address}   view {status.epoch}   round {status.round}   "
        f"loss {decimal(status.loss, 3)}   up {status.uptime_s:.0f} s{parity}"
    )
    if not status.peers:
        console.print("no islands yet")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("island", no_wrap=True)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("round", "loss", "tokens/s", "sync", "sent", "heard", "metrics"):
        table.add_column(name, justify="right", no_wrap=True)
    members = list(status.members)
    for peer in sorted(status.peers, key=lambda peer: peer.info.order):
        report = peer.report
        table.add_row(
            peer.info.island,
            str(members.index(peer.info.id)) if peer.info.id in members else "-",
            peer.state if peer.state != "member" or not report.phase else report.phase,
            str(report.round),
            decimal(report.loss, 3),
            scaled(report.tokens_per_s),
            f"{report.sync_s:.2f} s",
            scaled_bytes(report.sent_bytes),
            f"{peer.heard_ago_s:.1f} s ago",
            f":{report.metrics_port}" if report.metrics_port else "-",
        )
    console.print(table)
