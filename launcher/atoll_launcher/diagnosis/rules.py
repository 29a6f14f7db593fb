"""What the doctor makes of what it has measured. Pure functions: numbers in, findings out."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.trust.exposure import is_loopback
from atoll_launcher.watch.plain import scaled

LONG_RTT_S = 0.02
"""From here on congestion control and buffers decide what a path gives."""
DEAR_LOSS = 0.001
HEADROOM = 2.0
"""A buffer holds what is under way and what waits to be sent again."""
SKEW_WARN_S = 2.0
SKEW_FAIL_S = 240.0
"""Certificates are made valid from five minutes ago on."""
DAYS_WARN = 7.0
FEWEST_FILES = 4096
IPV6_MTU = 1280


class Level(enum.StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A line of the report. `advice`: the next step; empty when there is nothing to do."""

    level: Level
    about: str
    text: str
    advice: str = ""


def ok(about: str, text: str) -> Finding:
    return Finding(level=Level.OK, about=about, text=text)


def warn(about: str, text: str, advice: str) -> Finding:
    return Finding(level=Level.WARN, about=about, text=text, advice=advice)


def fail(about: str, text: str, advice: str) -> Finding:
    return Finding(level=Level.FAIL, about=about, text=text, advice=advice)


def rate_text(bytes_per_s: float) -> str:
    """1.2 Gbit/s"""
    number = scaled(bytes_per_s * 8)
    return f"{number[:-1]} {number[-1]}bit/s" if number[-1].isalpha() else f"{number} bit/s"


def time_text(seconds: float) -> str:
    """0.12 ms, 80 ms, 1.5 s"""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def mtu(path_mtu: int, mss: int) -> Finding:
    text = f"{path_mtu} bytes on the way, {mss} of payload in a segment"
    if path_mtu < IPV6_MTU:
        return warn(
            "mtu",
            text,
            "a tunnel makes packets small: give it a larger MTU, 1400 or more, if you can",
        )
    return ok("mtu", text)


def large_packets(passed: bool, largest: int | None) -> Finding:
    """Whether full packets arrive, when small ones do. largest: bytes of those that do, if that was
    found out."""
    about = "large packets"
    if passed:
        return ok(about, "arrive in both directions")
    if largest is None:
        return fail(
            about,
            "small messages are answered, large ones are not, of whatever packets",
            "look for a firewall or a middlebox that ends or holds up connections on the way",
        )
    return fail(
        about,
        f"an MTU black hole: packets of up to {largest} bytes arrive, larger ones vanish, and "
        'nobody says so (ICMP "too big" is dropped on the way)',
        f"on this machine, which is enough: ip link set dev DEV mtu {largest} (DEV: ip route get "
        "ADDRESS); or let ICMP type 3 code 4 (IPv6: type 2) through. net.ipv4.tcp_mtu_probing does "
        "not help: handshakes end before it does",
    )


def round_trip(rtt_s: float) -> Finding:
    return ok("round trip", time_text(rtt_s))


def rates(one: tuple[float, float], eight: tuple[float, float], most: float) -> Finding:
    """Bytes a second to the coordinator and from it, over 1 and over 8 connections. most: what a
    coordinator answers at all."""
    there = f"{rate_text(one[0])} there and {rate_text(one[1])} back with 1 connection"
    more = f"{rate_text(eight[0])} and {rate_text(eight[1])} with 8"
    text = f"{there}, {more}"
    if max(*one, *eight) > 0.7 * most:
        return ok("rate", f"{text} (about as much as a coordinator answers)")
    if max(eight[0] / max(one[0], 1), eight[1] / max(one[1], 1)) > 1.5:
        return ok("rate", f"{text}: several connections pay here; links take them by themselves")
    return ok("rate", text)


def buffers(rate_bytes_per_s: float, rtt_s: float, sent_most: int, received_most: int) -> Finding:
    """net.ipv4.tcp_wmem and tcp_rmem, their last numbers, against what one connection needs at this
    rate: the bandwidth-delay product, twice."""
    needed = HEADROOM * rate_bytes_per_s * rtt_s
    text = (
        f"at most {scaled(sent_most)}B to send and {scaled(received_most)}B to receive under way "
        "on a connection"
    )
    if needed <= min(sent_most, received_most):
        return ok("buffers", text)
    size = 1 << math.ceil(math.log2(needed))
    changes = []
    if needed > received_most:
        changes.append(f'net.ipv4.tcp_rmem="4096 131072 {size}"')
    if needed > sent_most:
        changes.append(f'net.ipv4.tcp_wmem="4096 65536 {size}"')
    return warn(
        "buffers",
        f"{text}; this path needs {scaled(needed)}B for its rate on one",
        " && ".join(f"sysctl -w {change}" for change in changes)
        + " (or several connections: ATOLL_CONNECTIONS)",
    )


def congestion(name: str, available: Sequence[str], rtt_s: float, resent: float) -> Finding:
    """resent: segments that were sent again, as a part of all."""
    text = f"{name}; {resent:.2%} of the segments were sent again"
    if name == "bbr" or rtt_s < LONG_RTT_S or resent < DEAR_LOSS:
        return ok("congestion", text)
    load = "" if "bbr" in available else "modprobe tcp_bbr && "
    return warn(
        "congestion",
        f"{text}, which costs much on a path of {time_text(rtt_s)}",
        f"{load}sysctl -w net.ipv4.tcp_congestion_control=bbr net.core.default_qdisc=fq",
    )


def clock(skew_s: float, unsure_s: float, *, certificates: bool) -> Finding:
    """skew: how far the coordinator's clock is before ours."""
    side = "ahead of" if skew_s > 0 else "behind"
    text = f"the coordinator's is {time_text(abs(skew_s))} {side} ours, +-{time_text(unsure_s)}"
    advice = "let both machines keep time: timedatectl set-ntp true"
    if abs(skew_s) > SKEW_FAIL_S and certificates:
        return fail("clock", f"{text}; certificates and tokens look expired, or not valid", advice)
    if abs(skew_s) > SKEW_WARN_S + unsure_s:
        return warn("clock", f"{text}; times in logs and events do not match", advice)
    return ok("clock", text)


def certificate(who: str, days: float) -> Finding:
    text = f"{who}, valid for {days:.1f} days"
    advice = "have a new one made: atoll certs issue, or atoll token and --token"
    if days <= 0:
        return fail("certificate", f"{who}: expired", advice)
    return warn("certificate", text, advice) if days < DAYS_WARN else ok("certificate", text)


def versions(own: str, theirs: str) -> Finding:
    if own == theirs:
        return ok("version", f"atoll {own}, as the coordinator's")
    return warn(
        "version",
        f"atoll {own} here, {theirs} at the coordinator",
        f"pip install atoll=={theirs}: peers of one job run the same",
    )


def reached_back(
    seen: str, problems: Sequence[str], announced: Sequence[str], *, here_alone: bool = False
) -> Finding:
    """Whether the coordinator reached ports that were opened for it at the address that it saw.
    here_alone: nothing was said of where islands here listen, which then is loopback."""
    if any(problems):
        return warn(
            "reached from outside",
            f"no: the coordinator sees this machine as {seen}, and dialling it: {problems[0]}",
            "fine if the others can be reached: links are made from either side. Else open the "
            "ports of islands, or advertise an address that works: ATOLL_ADVERTISE_HOST",
        )
    if here_alone:
        return ok(
            "reached from outside",
            f"yes, as {seen}: with --advertise {seen} others can dial islands of this machine",
        )
    if announced and seen not in announced and not is_loopback(seen):
        return warn(
            "reached from outside",
            f"yes, as {seen}; but islands here would announce {', '.join(announced)}",
            f"ATOLL_ADVERTISE_HOST={seen}, and ATOLL_BIND_HOST=0.0.0.0",
        )
    return ok("reached from outside", f"yes, as {seen}")


def islands(problems: dict[str, str], *, reached: bool) -> Finding:
    """Whether the islands' data ports are reached from here. reached: whether we are, from outside;
    problems: by island; empty: it was reached."""
    bad = {name: problem for name, problem in problems.items() if problem}
    if not problems:
        return ok("islands", "none to reach yet")
    if not bad:
        return ok("islands", f"all {len(problems)} are reached")
    first = next(iter(bad))
    text = f"{len(bad)} of {len(problems)} are not reached: {first}: {bad[first]}"
    if reached:
        return warn("islands", text, "they have to dial this machine, which works: it is reached")
    step = "open a port on one side (ATOLL_BIND_HOST, ATOLL_ADVERTISE_HOST)"
    if len(bad) < len(problems):
        return warn(
            "islands",
            text,
            "neither side of such a pair reaches the other: it goes through an island that both "
            f"reach, which costs that one's line; {step} if that is slow",
        )
    advice = f"neither side reaches the other, and nobody is there to relay: {step}"
    return fail("islands", text, advice)


def open_files(most: int) -> Finding:
    text = f"{most} at most"
    if most < FEWEST_FILES:
        return warn("open files", text, f"ulimit -n {FEWEST_FILES * 4}, for jobs of many islands")
    return ok("open files", text)
