"""Once revoked or used, for good: also at a coordinator that was started anew; and back by a new
token alone."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def coordinator(certs: Path, port: int) -> Iterator[str]:
    """Of nothing but the authority's folder: its state ends with it."""
    process = subprocess.Popen(
        [
            *(*ATOLL, "coordinator", "--listen", f"127.0.0.1:{port}", "--job", "reef"),
            *("--tls", str(certs / "coordinator"), "--authority", str(certs)),
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


def test_revoked_and_used_outlast_the_coordinator(
    certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def atoll(*words: str) -> tuple[int, str]:
        """Exit code, and what was said."""
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out + err

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
