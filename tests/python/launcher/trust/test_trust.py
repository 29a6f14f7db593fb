"""A job with certificates, as its operator and its islands see it: real launchers, real TLS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from launched import Launch

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SCRIPT = """
import sys, torch, atoll
with atoll.join() as session:
    while session.all_reduce(torch.ones(10)).result()[0] < int(sys.argv[1]):
        pass
    print("transport", {link.transport for link in session.engine.stats().links if link.up})
    while session.all_reduce(torch.ones(10)).result()[0] >= int(sys.argv[2]):
        pass
"""


def atoll(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "atoll_launcher", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    assert atoll("certs", "init", "--job", "reef", "--dir", folder).returncode == 0
    return folder


def refusals(port: int) -> dict[str, float]:
    """By reason, from the coordinator's metrics; of those that there were."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    name = "atoll_coordinator_refused_callers_total{"
    found = [line for line in lines if line.startswith(name)]
    told = {line.split('reason="')[1].split('"')[0]: float(line.split()[-1]) for line in found}
    return {reason: count for reason, count in told.items() if count}


def test_a_job_that_asks_for_certificates(
    launch: Launch, certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOLL_SHARED_MEMORY", "0")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    host = launch(
        "run", "--standalone", "--job", "reef", "--authority", str(certs),
        "--islands", "2", "--max-restarts", "0", str(script), "3", "3",
    )  # fmt: skip
    listening = host.wait_for("listening")
    address, metrics = listening["address"], listening["metrics_port"]
    host.wait_for("joined", island="island-0")

    # Who has no certificate, or one of another job that has the same name, learns nothing.
    nobody = atoll("status", address)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (3, 1)
    assert "asks for certificates, and none was shown; name yours (--tls DIR" in nobody.stderr
    assert atoll("certs", "init", "--job", "reef", "--dir", tmp_path / "other").returncode == 0
    foreign = atoll("status", "--tls", tmp_path / "other" / "operator", address)
    assert (foreign.returncode, foreign.stderr.count("\n")) == (3, 1)
    assert "is not the coordinator of your certificate's job" in foreign.stderr

    # A token is good once, and only at the coordinator of its authority.
    token = atoll("token", "--dir", certs, "--enroll", address, "--island", "palm").stdout.strip()
    wrong = atoll("token", "--dir", tmp_path / "other", "--enroll", address).stdout.strip()
    stranger = atoll("certs", "enroll", wrong, "--out", tmp_path / "stranger")
    assert stranger.returncode == 3
    assert "its authority is another one" in stranger.stderr
    (tmp_path / "guest").mkdir()
    (tmp_path / "token").write_text(f"{token}\n")
    guest = launch(
        "run", "--join", address, "--token-file", str(tmp_path / "token"),
        str(script), "3", "0", folder=tmp_path / "guest",
    )  # fmt: skip
    host.wait_for("joined", island="palm")
    monkeypatch.setenv("ATOLL_TOKEN", token)
    again = atoll("certs", "enroll", "--out", tmp_path / "thief")
    monkeypatch.delenv("ATOLL_TOKEN")
    assert again.returncode == 3
    assert "used already" in again.stderr
    assert not (tmp_path / "thief").exists()

    # An island's certificate is that of an island, and of that one.
    palm = tmp_path / "guest" / ".atoll" / "identity-reef-palm"
    assert os.stat(palm / "key.pem").st_mode & 0o777 == 0o600
    seen = json.loads(atoll("status", "--json", "--tls", palm, address).stdout)
    assert {peer["island"] for peer in seen["peers"]} == {"island-0", "island-1", "palm"}
    theirs = atoll("revoke", "--tls", palm, address, "island-0")
    assert theirs.returncode == 3
    assert "takes the certificate of an operator or coordinator" in theirs.stderr
    for order in (["drain"], ["kill"], ["logs"]):
        theirs = atoll(*order, "--tls", palm, address, "island-0")
        assert (theirs.returncode, theirs.stdout) == (3, ""), order
        assert "takes the certificate of" in theirs.stderr
    # Its launcher came with that certificate, and sends its log to the operator.
    log = atoll("logs", "--tls", certs / "operator", address, "palm")
    assert (log.returncode, log.stderr) == (0, "")
    assert log.stdout.startswith("palm | ")
    command = [sys.executable, str(script), "1", "1"]
    env = {**os.environ, "ATOLL_COORDINATOR": address, "ATOLL_JOB": "reef"}
    env |= {"ATOLL_ISLAND": "island-9", "ATOLL_TLS_DIR": str(palm)}
    posing = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert "it does not speak for island 'island-9'" in posing.stderr

    assert refusals(metrics).keys() == {"no_certificate", "authority", "used", "role", "name"}

    # What is revoked is out; without it, the job is at its end.
    done = atoll("revoke", "--tls", certs / "operator", address, "palm")
    assert (done.returncode, done.stderr) == (0, "")
    assert "put out: palm" in done.stdout
    assert host.wait_for("left", island="palm")["reason"] == "revoked"
    # One line of its script, which knows nothing of it; no traceback, no restart, and a code.
    code, out, err = guest.end()
    assert (code, err.count("\n")) == (3, 1)
    assert "palm may not come back: " in err
    assert "palm | atoll: expelled from the job (revoked): " in out
    assert "Traceback" not in out
    assert not [event for event in guest.events if event["kind"] == "restarting"]
    code, out, err = host.end()
    assert (code, err) == (0, "")
    assert out.count("transport {'tls'}") == 2
