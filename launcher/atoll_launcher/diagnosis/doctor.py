"""`atoll doctor`: what is wrong between this machine and a job, and what to do about it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from atoll.config import parse_address, parse_addresses, parse_hosts, session_settings
from atoll.control.diagnosis import ECHO_BYTES_PER_S
from atoll.errors import ConfigError
from atoll.pb import control_pb2 as pb
from atoll.trust.exposure import is_loopback
from atoll.trust.why import refusal
from atoll_launcher import exit_codes
from atoll_launcher.diagnosis import probes, rules
from atoll_launcher.diagnosis.path_size import largest
from atoll_launcher.diagnosis.probes import Echoes, PathFacts
from atoll_launcher.diagnosis.rules import Finding, Level
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.watch.observer import fetch_status

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

COLORS = {Level.OK: "32", Level.WARN: "33", Level.FAIL: "31"}
RECONNECT = "check the address, that the coordinator runs, and firewalls between"
SLOW_S = 2.0
"""A coordinator that has not answered by then is perhaps one to which large packets do not come."""
SHORT_S = 20.0
"""Most of it, if a path that swallows large packets has to be measured."""


def run_doctor(address: str | None, identity: Identity | None, *, as_json: bool) -> int:
    """Print what was found; 0 unless something fails, then 3."""
    found = asyncio.run(_show(address, identity, as_json=as_json))
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    return exit_codes.CANNOT_JOIN if any(f.level is Level.FAIL for f in found) else exit_codes.OK


async def _show(address: str | None, identity: Identity | None, *, as_json: bool) -> list[Finding]:
    found = []
    async for finding in _examine(address, identity):
        found.append(finding)
        if not as_json:
            print(line(finding, colored=sys.stdout.isatty()), flush=True)
    return found


async def why_not_joined(
    address: str, identity: Identity | None, error: LauncherError
) -> list[str]:
    """The short form, after a join has failed: what is not as it should be, in a few seconds."""
    lines = []
    try:
        async with asyncio.timeout(SHORT_S):
            async for finding in _way(address, identity, error):
                if finding.level is not Level.OK:
                    lines.append(line(finding, colored=False))
            lines += [
                line(finding, colored=False)
                for finding in _certificate(identity)
                if finding.level is not Level.OK
            ]
    except TimeoutError:
        pass
    return lines


def line(finding: Finding, *, colored: bool) -> str:
    """ok    about                text, and the next step below it"""
    level = f"{finding.level.value:<5}"
    if colored:
        level = f"\x1b[{COLORS[finding.level]}m{level}\x1b[0m"
    text = f"{level} {finding.about:<21} {finding.text}"
    return f"{text}\n{'':<6}{'':<21} -> {finding.advice}" if finding.advice else text


async def _examine(address: str | None, identity: Identity | None) -> AsyncIterator[Finding]:
    for finding in (*_here(), *_certificate(identity)):
        yield finding
    if address is None:
        yield rules.ok("job", "none was named: only this machine was looked at (HOST:PORT)")
        return
    several = parse_addresses(address)
    for one in several:
        status: pb.StatusReply | None = None
        facts: PathFacts | None = None
        async for step in _reach(one, identity):
            match step:
                case Finding():
                    yield step
                case PathFacts():
                    facts = step
                case _:
                    status = step
        if facts is not None:
            yield rules.mtu(facts.mtu, facts.mss)
        if status is not None and facts is not None:
            async for finding in _measure(one, identity, facts, status):
                yield finding


async def _way(
    address: str, identity: Identity | None, known: LauncherError
) -> AsyncIterator[Finding]:
    for one in parse_addresses(address):
        async for step in _reach(one, identity, known):
            if isinstance(step, Finding):
                yield step


def _here() -> Iterable[Finding]:
    """This machine, whatever the job."""
    import platform

    from atoll import __version__

    yield rules.ok(
        "this machine",
        f"atoll {__version__}, Python {platform.python_version()}, Linux {platform.release()}, "
        f"{len(os.sched_getaffinity(0))} cores",
    )
    yield rules.open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _certificate(identity: Identity | None) -> Iterable[Finding]:
    if identity is None:
        yield rules.ok("certificate", "none: the job is on loopback, or asks for none")
        return
    from cryptography import x509

    try:
        who = str(identity.checked(datetime.now(UTC)))
    except ConfigError as error:
        yield rules.fail("certificate", str(error), "see docs/security.md")
        return
    ends = x509.load_pem_x509_certificate(identity.certificate).not_valid_after_utc
    yield rules.certificate(who, (ends - datetime.now(UTC)).total_seconds() / 86400)


async def _reach(
    address: str, identity: Identity | None, known: LauncherError | None = None
) -> AsyncIterator[Any]:
    """Findings on the way to a coordinator; facts about the path, and its status, if it answers.
    known: why it does not, if it was asked already."""
    host, port = parse_address(address)
    try:
        found = await asyncio.to_thread(probes.resolve, host, port)
    except OSError as error:
        yield rules.fail(
            "name", f"{host}: {error.strerror or error}", "correct the name, or use an address"
        )
        return
    places = ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found))
    yield rules.ok("name", f"{host} is {places}")
    try:
        facts = await asyncio.to_thread(probes.connect, found)
    except OSError as error:
        silent = isinstance(error, TimeoutError)
        why = f"no answer within {probes.CONNECT_S:.0f} s" if silent else error.strerror or error
        step = "a firewall drops packets on the way" if silent else "nothing listens there"
        yield rules.fail("port", f"{address}: {why}", f"{step}; {RECONNECT}")
        return
    yield rules.ok("port", f"{address} takes connections")
    yield facts
    asked = asyncio.ensure_future(_asked(address, identity, known))
    hole = None
    if not (await asyncio.wait({asked}, timeout=SLOW_S))[0]:
        # With certificates nothing at all is answered where large packets vanish: they fill them.
        hole = await _swallowed(address, identity, facts)
    if hole is not None:
        asked.cancel()
        yield hole
        return
    answer = await asked
    if isinstance(answer, LauncherError):
        yield await _no_status(address, identity, answer, facts)
        return
    status = answer
    lead = "stands by" if status.standby else f"view {status.epoch}"
    yield rules.ok("coordinator", f"job '{status.job}', {lead}, {len(status.peers)} peers")
    yield status


async def _asked(
    address: str, identity: Identity | None, known: LauncherError | None
) -> pb.StatusReply | LauncherError:
    if known is not None:
        return known
    try:
        return await fetch_status(address, identity)
    except LauncherError as error:
        return error


async def _swallowed(address: str, identity: Identity | None, facts: PathFacts) -> Finding | None:
    """Whether the way swallows large packets; None: it does not."""
    size = await largest((facts.address, parse_address(address)[1]), identity, facts.mtu)
    return None if size is None else rules.large_packets(False, size)


async def _no_status(
    address: str, identity: Identity | None, error: LauncherError, facts: PathFacts
) -> Finding:
    if "stands by" in str(error):
        return rules.warn("coordinator", str(error), "name all of the job's coordinators")
    why = await asyncio.to_thread(refusal, address, identity, now=datetime.now(UTC))
    if why is not None:
        return rules.fail("coordinator", why.text, why.step)
    hole = await _swallowed(address, identity, facts)
    return hole or rules.fail("coordinator", str(error), RECONNECT)


async def _measure(
    address: str, identity: Identity | None, facts: PathFacts, status: pb.StatusReply
) -> AsyncIterator[Finding]:
    from atoll import __version__

    echoes = Echoes(address, identity)
    try:
        _, skew_s, unsure_s, reply = await echoes.small()
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            yield rules.warn(
                "version", "the coordinator is older than this program", "update it: pip install"
            )
        else:
            yield rules.fail("echo", str(error.details()), RECONNECT)
        return
    yield rules.round_trip(facts.rtt_s)
    yield rules.versions(__version__, reply.software_version)
    yield rules.clock(skew_s, unsure_s, certificates=identity is not None)
    passes = await echoes.comes_back(probes.LARGE_BYTES)
    hole = None if passes else await _swallowed(address, identity, facts)
    yield hole or rules.large_packets(passes, None)
    if passes:
        async for finding in _rates(echoes, facts):
            yield finding
    async for finding in _both_ways(echoes, facts, status):
        yield finding


async def _rates(echoes: Echoes, facts: PathFacts) -> AsyncIterator[Finding]:
    sent, again = probes.resent_segments()
    one = (await echoes.rate(1, there=True), await echoes.rate(1, there=False))
    eight = (await echoes.rate(8, there=True), await echoes.rate(8, there=False))
    sent_now, again_now = probes.resent_segments()
    yield rules.rates(one, eight, float(ECHO_BYTES_PER_S))
    resent = (again_now - again) / max(1, sent_now - sent)
    available = probes.kernel("net.ipv4.tcp_available_congestion_control").split()
    yield rules.congestion(facts.congestion, available, facts.rtt_s, resent)
    most = [probes.kernel(f"net.ipv4.tcp_{kind}").split() for kind in ("wmem", "rmem")]
    if all(most):
        rate = max(*one, *eight)
        yield rules.buffers(rate, facts.rtt_s, int(most[0][-1]), int(most[1][-1]))


async def _both_ways(
    echoes: Echoes, facts: PathFacts, status: pb.StatusReply
) -> AsyncIterator[Finding]:
    settings = session_settings({})
    reached = True
    # In a job beyond this machine the question is whether islands here could be dialled, and not
    # whether they listen on loopback, as without a word they do.
    here_alone = is_loopback(settings.bind_host) and not is_loopback(facts.address)
    bound = ("::" if ":" in facts.address else "0.0.0.0") if here_alone else settings.bind_host
    try:
        answer = await echoes.dialled_back(bound)
        announced = [] if here_alone else parse_hosts(settings.advertise_host)
        back = rules.reached_back(
            answer.seen, list(answer.problems), announced, here_alone=here_alone
        )
        reached = not any(answer.problems)
        yield back
    except (OSError, grpc.aio.AioRpcError) as error:
        details = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
        yield rules.warn("reached from outside", f"could not be tried: {details}", "try again")
    endpoints: dict[str, list[tuple[str, int]]] = {}
    for peer in status.peers:
        known = endpoints.setdefault(peer.info.island, [])
        for endpoint in peer.info.endpoints:
            # Behind NAT: that loopback is its own, not ours.
            if is_loopback(facts.address) or not is_loopback(endpoint.host):
                known.append((endpoint.host, endpoint.port))
    yield rules.islands(await probes.reach(endpoints), reached=reached)
