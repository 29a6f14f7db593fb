"""`atoll bench links`: what was measured of the links of a running job."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from atoll.control.channel import open_channel
from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc
from atoll_launcher.diagnosis.rules import rate_text, time_text
from atoll_launcher.exit_codes import CANNOT_JOIN, LauncherError
from atoll_launcher.watch.observer import CALL_TIMEOUT_S, OPTIONS, find_leader, unreachable

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

MATRIX_ISLANDS = 12
"""More do not fit on a screen: then the slowest and the fastest links are listed."""
LISTED = 10
MEASURE_S = 120.0
"""A measurement is at most one in 30 s, and takes a quarter of a second for each island."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """From one island to another."""

    source: str
    target: str
    rate_bytes_per_s: float
    rtt_s: float


def show_links(address: str, identity: Identity | None, *, measure: bool, as_json: bool) -> None:
    """Print rates and round trips. Raises LauncherError when there is no job, or nothing known."""
    status, reply = asyncio.run(_fetch(address, identity, measure=measure))
    names = names_of(status)
    links = links_of(reply, names)
    islands = list(dict.fromkeys(names.values()))
    if as_json:
        rows = [
            {
                "from": link.source,
                "to": link.target,
                "rate_bytes_per_s": link.rate_bytes_per_s,
                "rtt_s": link.rtt_s,
            }
            for link in links.values()
        ]
        print(json.dumps({"job": status.job, "islands": islands, "links": rows}, indent=2))
    elif not links:
        raise LauncherError(
            f"no links of job '{status.job}' were measured yet: that takes two islands, and some "
            "seconds; ask again, or with --measure"
        )
    else:
        _print(status, islands, links)


def names_of(status: pb.StatusReply) -> dict[bytes, str]:
    """Islands by the ids of their first shards, members by rank and then the others."""
    ranks = {member: rank for rank, member in enumerate(status.members)}
    first = [peer for peer in status.peers if peer.info.shard == 0]
    first.sort(key=lambda peer: (ranks.get(peer.info.id, len(ranks)), peer.info.order))
    return {peer.info.id: peer.info.island for peer in first}


def links_of(reply: pb.ShowLinksReply, names: Mapping[bytes, str]) -> dict[tuple[str, str], Link]:
    found = {}
    for one in reply.links:
        source, target = names.get(getattr(one, "from")), names.get(one.to)
        if source is not None and target is not None:
            found[source, target] = Link(
                source=source,
                target=target,
                rate_bytes_per_s=one.rate_bytes_per_s,
                rtt_s=one.rtt_s,
            )
    return found


async def _fetch(
    address: str, identity: Identity | None, *, measure: bool
) -> tuple[pb.StatusReply, pb.ShowLinksReply]:
    leader, status = await find_leader(address, identity)
    async with open_channel(leader, identity, OPTIONS) as channel:
        stub = control_pb2_grpc.CoordinatorStub(channel)
        try:
            reply = await stub.ShowLinks(pb.ShowLinksRequest(), timeout=CALL_TIMEOUT_S)
            if measure:
                if len(status.members) < 2 * max(1, status.shards):
                    raise LauncherError("there is no link to measure: the job has one island")
                reply = await _measured(stub, reply.measurements)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise LauncherError(
                    "the coordinator is older than this program; update it", CANNOT_JOIN
                ) from None
            raise unreachable(leader, error) from None
    return status, reply


async def _measured(stub: control_pb2_grpc.CoordinatorStub, before: int) -> pb.ShowLinksReply:
    """Once a measurement has begun after `before`, and ended."""
    print("measuring; islands do it in turn, twice a minute at most ...", file=sys.stderr)
    end = time.monotonic() + MEASURE_S
    reply: pb.ShowLinksReply = await stub.ShowLinks(
        pb.ShowLinksRequest(measure=True), timeout=CALL_TIMEOUT_S
    )
    while reply.measuring or reply.measurements <= before:
        if time.monotonic() > end:
            raise LauncherError(
                f"no measurement within {MEASURE_S:.0f} s; islands come and go too often, or "
                "ATOLL_PROBE=0 is set"
            )
        await asyncio.sleep(0.5)
        reply = await stub.ShowLinks(pb.ShowLinksRequest(), timeout=CALL_TIMEOUT_S)
    return reply


def _print(
    status: pb.StatusReply, islands: Sequence[str], links: Mapping[tuple[str, str], Link]
) -> None:
    print(f"job {status.job}   view {status.epoch}   {len(islands)} islands")
    if len(islands) <= MATRIX_ISLANDS:
        print("\nrate from the island on the left to that above")
        print(
            matrix(
                islands, {pair: rate_text(link.rate_bytes_per_s) for pair, link in links.items()}
            )
        )
        print("\nround trip")
        print(matrix(islands, {pair: time_text(link.rtt_s) for pair, link in links.items()}))
        return
    ordered = sorted(links.values(), key=lambda link: link.rate_bytes_per_s)
    for title, some in (("slowest", ordered[:LISTED]), ("fastest", ordered[-LISTED:][::-1])):
        print(f"\n{title} of {len(ordered)} links")
        for link in some:
            rate, rtt = rate_text(link.rate_bytes_per_s), time_text(link.rtt_s)
            print(f"  {rate:>14}  {rtt:>8}  {link.source} -> {link.target}")


def matrix(islands: Sequence[str], cells: Mapping[tuple[str, str], str]) -> str:
    """Names above and to the left; a dash where nothing is known."""
    head = ["", *islands]
    rows = [
        [one, *("" if one == other else cells.get((one, other), "-") for other in islands)]
        for one in islands
    ]
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )
