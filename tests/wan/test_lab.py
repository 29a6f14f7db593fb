"""The laboratory itself, with real namespaces: what its links do is what was asked for.

Needs root, /dev/net/tun and the emulator; is skipped elsewhere, and says why.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from wan_lab import Lab, LabError, emulator, why_not
from wan_profile import Profile, load, parse

pytestmark = [
    pytest.mark.wan,
    pytest.mark.skipif(why_not() is not None, reason=f"the laboratory {why_not()}"),
]

ENDS = Path(__file__).with_name("lab_ends.py")
DELAY_MS = 25.0
MBIT = 40.0


def two(**changes: float) -> Profile:
    profile = parse('[[host]]\nname = "a"\n[[host]]\nname = "b"\n', "two")
    settings = {"up_mbit": MBIT, "down_mbit": MBIT, "delay_ms": DELAY_MS, **changes}
    return profile.with_everywhere(**settings)


def ends(lab: Lab, what: str, *words: str) -> dict[str, float]:
    """What two processes on hosts 0 and 1 measure between them."""
    server = lab.spawn(1, [sys.executable, str(ENDS), "serve"], os.environ, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline().strip() == "ready"
    command = [sys.executable, str(ENDS), what, lab.address(1), *words]
    client = lab.spawn(0, command, os.environ, stdout=subprocess.PIPE)
    said, _ = client.communicate(timeout=60)
    server.kill()
    measured: dict[str, float] = json.loads(said)
    return measured


def test_delay_and_rate_are_as_asked() -> None:
    with Lab.start(two()) as lab:
        assert ends(lab, "ping")["seconds"] >= 2 * DELAY_MS / 1e3
        lab.mark()
        took_s = ends(lab, "send", str(1 << 20))["seconds"]
        # Never faster than the line; how much slower is TCP's business and the machine's.
        assert took_s >= (1 << 20) * 8 / (MBIT * 1e6)
        report = lab.report()
        assert report.hosts[0]["sent_bytes"] > 1 << 20
        assert report.packets > 0
        lab.tell("link 0 1 delay 60")
        assert ends(lab, "ping")["seconds"] >= 0.120


def test_losses_are_those_of_packets_and_streams_survive_them() -> None:
    with Lab.start(two(loss=0.02, delay_ms=1)) as lab:
        lab.mark()
        assert ends(lab, "send", str(4 << 20))["bytes"] == 4 << 20
        report = lab.report()
        sent = report.hosts[0]["sent_bytes"] / 1500
        assert 0.01 * sent < report.hosts[0]["dropped_lost"] < 0.03 * sent


def test_every_offloaded_burst_arrives_whole_where_queues_overflow() -> None:
    with Lab.start(two(queue_ms=5, delay_ms=5)) as lab:
        lab.mark()
        assert ends(lab, "send", str(2 << 20))["bytes"] == 2 << 20
        assert lab.report().dropped("full") > 0


def test_a_cut_holds_packets_back_until_it_heals() -> None:
    with Lab.start(two(delay_ms=1)) as lab:
        lab.tell("cut 0 1")
        lab.mark()
        command = [sys.executable, str(ENDS), "ping", lab.address(1)]
        server = lab.spawn(
            1, [sys.executable, str(ENDS), "serve"], os.environ, stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        server.stdout.readline()
        client = lab.spawn(0, command, os.environ, stdout=subprocess.PIPE)
        while lab.report().dropped("cut") == 0:
            assert client.poll() is None
        lab.tell("heal 0 1")
        said, _ = client.communicate(timeout=60)
        assert json.loads(said)["seconds"] > 0


def test_hosts_have_the_congestion_control_that_was_asked_for() -> None:
    with Lab.start(two(), congestion="reno") as lab:
        command = ["cat", "/proc/sys/net/ipv4/tcp_congestion_control"]
        cat = lab.spawn(0, command, os.environ, stdout=subprocess.PIPE)
        assert cat.communicate(timeout=60)[0].strip() == "reno"
    with (
        pytest.raises(LabError, match="no congestion control 'none-such'; it has"),
        Lab.start(two(), congestion="none-such"),
    ):
        pass


def names() -> set[str]:
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_nothing_is_left_of_a_laboratory() -> None:
    with Lab.start(two()) as lab:
        mine = {f"{lab.name}-0", f"{lab.name}-1"}
        assert mine <= names()
    assert not mine & names()


def test_the_next_start_removes_what_a_killed_emulator_has_left(tmp_path: Path) -> None:
    lost = f"lost{os.getpid()}"
    command = [str(emulator()), "--name", lost, "--hosts", "3", "--control", str(tmp_path / "c")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["ready"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = {f"{lost}-{host}" for host in range(3)}
    assert left <= names()
    with Lab.start(two()):
        assert not left & names()


def test_a_laboratory_refuses_what_makes_no_sense() -> None:
    with Lab.start(two()) as lab:
        with pytest.raises(LabError, match="no command 'explode'"):
            lab.tell("explode 0")
        assert lab.tell("host 0 up 1") == "ok"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hosts", "1"], "--hosts takes a whole number from 2 to 64, not '1'"),
        (["--hosts", "many"], "--hosts takes a whole number"),
        (["--speed", "1"], "not understood: --speed 1"),
        (["--mtu"], "options come with a value each"),
        (["--name", "../x"], "--name takes up to 40"),
        (["--name", "x"], "--control SOCKET is missing"),
    ],
)
def test_wrong_usage_of_the_emulator_is_said(words: list[str], message: str) -> None:
    done = subprocess.run([str(emulator()), *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr


def test_without_root_it_says_so() -> None:
    command = ["setpriv", "--reuid=65534", "--clear-groups", str(emulator())]
    command += ["--name", "x", "--control", "/tmp/none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "needs root" in done.stderr


def test_profiles_become_the_emulators_settings() -> None:
    with Lab.start(load("three-continents")) as lab:
        assert lab.hosts == 6
