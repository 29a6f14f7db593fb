"""A path that swallows large packets, and a name that only the hosts file knows.

    near --1500-- router --1300-- far      without ICMP, both ways: an MTU black hole

`far` has the coordinator, with certificates, so that on a connection nothing is ever answered.
Needs root and ip; is skipped elsewhere, and says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None,
        reason="NOT TESTED: MTU black holes need network namespaces: root, and `ip` (iproute2)",
    ),
]

NAME = "coord.example"
NARROW = 1300
ATOLL = (sys.executable, "-m", "atoll_launcher")


def ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True, text=True)


def wire(router: str, name: str, side: str, network: int) -> None:
    """A place with its line to the router, of which only the router knows how narrow it is."""
    ip("-n", router, "link", "add", side, "mtu", str(NARROW), "type", "veth", "peer", "way")
    ip("-n", router, "link", "set", "way", "netns", name)
    ip("-n", router, "addr", "add", f"10.79.{network}.254/24", "dev", side)
    ip("-n", router, "link", "set", side, "up")
    ip("-n", name, "addr", "add", f"10.79.{network}.1/24", "dev", "way")
    ip("-n", name, "link", "set", "way", "up", "mtu", "1500")
    ip("-n", name, "link", "set", "lo", "up")
    ip("-n", name, "route", "add", "default", "via", f"10.79.{network}.254")


@pytest.fixture
def places() -> Iterator[tuple[str, str]]:
    """The namespaces of `near` and `far`."""
    near, router, far = names = [f"hole{os.getpid()}-{place}" for place in ("near", "mid", "far")]
    hosts = Path("/etc/netns", near)
    with contextlib.ExitStack() as at_end:
        for name in names:
            ip("netns", "add", name)
            at_end.callback(ip, "netns", "del", name)
        forward = ("sysctl", "-qw", "net.ipv4.ip_forward=1")
        subprocess.run(("ip", "netns", "exec", router, *forward), check=True)
        ip("-n", router, "rule", "add", "blackhole", "ipproto", "icmp", "pref", "10")
        wire(router, near, "near", 1)
        wire(router, far, "far", 2)
        hosts.mkdir(parents=True)
        at_end.callback(shutil.rmtree, hosts)
        (hosts / "hosts").write_text(f"127.0.0.1 localhost\n10.79.2.1 {NAME}\n")
        yield near, far


@pytest.fixture
def coordinator(places: tuple[str, str], tmp_path: Path) -> Iterator[str]:
    """HOST:PORT, as `near` knows it."""
    certs = tmp_path / "certs"
    subprocess.run([*ATOLL, "certs", "init", "--job", "reef", "--dir", str(certs)], check=True)
    process = subprocess.Popen(
        [
            *("ip", "netns", "exec", places[1], *ATOLL, "coordinator", "--listen", "0.0.0.0:7000"),
            *("--job", "reef", "--tls", str(certs / "coordinator")),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "listening" in line:
            break
    yield f"{NAME}:7000"
    process.kill()
    process.communicate()


def test_a_black_hole_is_found_and_the_advice_is_right(
    places: tuple[str, str], coordinator: str, tmp_path: Path
) -> None:
    def asked(command: str) -> subprocess.CompletedProcess[str]:
        operator = str(tmp_path / "certs" / "operator")
        inside = ("ip", "netns", "exec", places[0], *ATOLL, command, "--tls", operator)
        return subprocess.run([*inside, coordinator], capture_output=True, text=True)

    found = asked("doctor")
    assert (found.returncode, found.stderr) == (3, "")
    line, advice = found.stdout.split("fail  ")[1].splitlines()[:2]
    assert f"black hole: packets of up to {NARROW} bytes arrive, larger ones vanish" in line
    assert f"ip link set dev DEV mtu {NARROW}" in advice

    ip("-n", places[0], "link", "set", "way", "mtu", str(NARROW))
    healed = asked("status")
    assert (healed.returncode, healed.stderr) == (0, "")
    assert "no islands yet" in healed.stdout
