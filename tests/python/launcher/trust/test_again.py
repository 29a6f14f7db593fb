"""Once revoked or used, for good: also at a coordinator that was started anew; and back by a new
token alone."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc
from atoll.trust.authority import new_request
from atoll.trust.identity import channel_options, stranger_credentials
from atoll.trust.remembered import FILE
from atoll_launcher.main import main
from atoll_launcher.trust.certs import make_authority, make_token
from ports import free_port

pytestmark = pytest.mark.processes
ATOLL = (sys.executable, "-m", "atoll_launcher")


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    make_authority("reef", tmp_path / "certs", days=1)
    return tmp_path / "certs"


@contextlib.contextmanager
def coordinator(certs: Path, port: int, *more: str) -> Iterator[str]:
    """Without more, of nothing but the authority's folder: its state ends with it."""
    process = subprocess.Popen(
        [
            *(*ATOLL, "coordinator", "--listen", f"127.0.0.1:{port}", "--job", "reef"),
            *("--tls", str(certs / "coordinator"), "--authority", str(certs), *more),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert any("listening" in line for line in process.stderr)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def atoll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The command line, in the test's own folder: exit code, and what was said."""
    monkeypatch.chdir(tmp_path)

    def say(*words: str) -> tuple[int, str]:
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out + err

    return say


def test_revoked_and_used_outlast_the_coordinator(
    certs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    atoll: Callable[..., tuple[int, str]],
) -> None:
    def token(address: str) -> str:
        return make_token(certs, address, "palm", "15m")

    def status(tls: Path) -> tuple[int, str]:
        return atoll("status", "--tls", str(tls), address)

    port = free_port()
    kept, stolen = tmp_path / ".atoll" / "identity-reef-palm", tmp_path / "stolen"
    with coordinator(certs, port) as address:
        first = token(address)
        assert atoll("certs", "enroll", first)[0] == 0
        shutil.copytree(kept, stolen)
        assert atoll("revoke", "--tls", str(certs / "operator"), address, "palm")[0] == 0
        assert status(kept)[0] == 3

    with coordinator(certs, port):
        for tls in (kept, stolen):
            code, said = status(tls)
            assert code == 3
            assert "island 'palm' of job 'reef' was revoked" in said
        code, said = atoll("certs", "enroll", first, "--out", "thief")
        assert code == 3
        assert "used already" in said
        assert not (tmp_path / "thief").exists()

        # A certificate that was named stays what it is; the folder of tokens gets a new one.
        again = token(address)
        assert atoll("certs", "enroll", again, "--out", str(stolen))[0] == 0
        assert status(stolen)[0] == 3
        assert atoll("certs", "enroll", again)[0] == 0
        assert status(kept)[0] == 0
        assert status(stolen)[0] == 3

        # The launcher takes a folder by the same word as all other commands.
        monkeypatch.setenv("ATOLL_TLS_DIR", str(kept))
        (tmp_path / "train.py").write_text("")
        code, said = atoll("run", "--join", address, "--tls", str(stolen), "train.py")
        assert code == 3
        assert "island 'palm' of job 'reef' was revoked" in said
    assert atoll("run", "--standalone", "--tls", str(kept), "train.py")[0] == 2


def ask(certs: Path, address: str, token: str, request: bytes) -> str:
    """What a coordinator says to a signing request; nothing: it signed."""
    credentials = stranger_credentials((certs / "ca.pem").read_bytes())
    message = pb.EnrollRequest(token=token, request=request)
    with grpc.secure_channel(address, credentials, channel_options()) as channel:
        try:
            control_pb2_grpc.CoordinatorStub(channel).Enroll(message, timeout=10)
        except grpc.RpcError as error:
            return str(error.details())
    return ""


def test_tokens_made_before_a_revocation_are_void_as_certificates_are(
    certs: Path, tmp_path: Path, atoll: Callable[..., tuple[int, str]]
) -> None:
    def enroll(token: str, island: str) -> tuple[int, str]:
        return atoll("certs", "enroll", token, "--island", island, "--out", f"out-{island}")

    def refused_for_revocation() -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{pages}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        name = 'atoll_coordinator_refused_callers_total{job="reef",reason="revoked"} '
        return next(float(one.removeprefix(name)) for one in lines if one.startswith(name))

    def all_are_void() -> None:
        for token, island, which in (
            (palm, "palm", "'palm' was revoked; "),
            (anybody, "fern", "'palm' was revoked and names no island; "),
        ):
            code, said = enroll(token, island)
            assert (code, said.count("\n")) == (3, 1)
            assert f"the token is void: it was made before {which}ask the operator" in said
            assert not (tmp_path / f"out-{island}").exists()
        # Whose answer was lost may ask again with the same key, but not after that.
        assert "made before 'palm' was revoked" in ask(certs, address, used, request)

    port, pages = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    page = ("--metrics-port", str(pages))
    with coordinator(certs, port, *page):
        used, palm, reed, anybody = (
            make_token(certs, address, island, "15m") for island in ("palm", "palm", "reed", "")
        )
        _, request = new_request("palm")
        assert (ask(certs, address, used, request), ask(certs, address, used, request)) == ("", "")
        code, said = atoll("revoke", "--tls", str(certs / "operator"), address, "palm")
        assert (code, said.startswith("certificates and unused tokens of 'palm'")) == (0, True)
        all_are_void()
        assert refused_for_revocation() == 3

    # The authority's folder remembers it for jobs that begin anew, and the job's store by itself.
    with coordinator(certs, port):
        all_are_void()
    (certs / FILE).unlink()
    store = ("--store", f"sqlite:{tmp_path / 'job.db'}")
    with coordinator(certs, port, *store):
        assert atoll("revoke", "--tls", str(certs / "operator"), address, "palm")[0] == 0
    (certs / FILE).write_text(json.dumps({"revoked": {}, "used": {}}))
    with coordinator(certs, port, *store):
        all_are_void()
        assert enroll(reed, "reed")[0] == 0
        assert enroll(make_token(certs, address, "palm", "15m"), "palm")[0] == 0
        assert atoll("status", "--tls", "out-palm", address)[0] == 0
