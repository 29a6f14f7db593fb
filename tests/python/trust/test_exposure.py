"""What strangers reach asks for certificates, or says aloud that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

import atoll
from atoll import coordinator
from atoll.errors import ConfigError
from atoll.trust.exposure import check_coordinator, check_island, is_loopback
from atoll_launcher.main import main


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.5", False),
        ("2001:db8::1", False),
        ("localhost.example.org", False),
        ("palm", False),
    ],
)
def test_loopback_is_what_nobody_else_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def coordinator_at(listen: str, advertise: str = "", **said: bool) -> None:
    given = {"trusted": False, "insecure": False, **said}
    check_coordinator(listen=listen, advertise=advertise, **given)


def test_a_coordinator_beyond_loopback_needs_certificates_or_a_word() -> None:
    coordinator_at("127.0.0.1:0")
    coordinator_at("[::1]:7000", "localhost:7000")
    coordinator_at("0.0.0.0:7000", trusted=True)
    coordinator_at("0.0.0.0:7000", insecure=True)
    for listen, advertise in (("[::]:7000", ""), ("127.0.0.1:7000", "coord.example:7000")):
        with pytest.raises(ConfigError, match=r"atoll certs init .*--insecure"):
            coordinator_at(listen, advertise)


def test_an_island_beyond_loopback_needs_a_certificate_or_a_word() -> None:
    here = {"bind_host": "127.0.0.1", "advertise_hosts": ["127.0.0.1"]}
    for hosts in ({"bind_host": "0.0.0.0"}, {"advertise_hosts": ["127.0.0.1", "palm.example"]}):
        with pytest.raises(ConfigError, match=r"--token.*ATOLL_TLS_DIR.*ATOLL_INSECURE=1"):
            check_island(**{**here, **hosts}, trusted=False, insecure=False)  # type: ignore[arg-type]
        check_island(**{**here, **hosts}, trusted=True, insecure=False)  # type: ignore[arg-type]
        check_island(**{**here, **hosts}, trusted=False, insecure=True)  # type: ignore[arg-type]
    check_island(**here, trusted=False, insecure=False)  # type: ignore[arg-type]


# --- where it is asked ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nobody_has_said_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATOLL_INSECURE", raising=False)


def test_the_coordinator_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert coordinator.main(["--listen", "0.0.0.0:0"]) == 2
    assert "without certificates" in capsys.readouterr().err
    assert main(["coordinator", "--listen", "0.0.0.0:0"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("atoll: the coordinator listens on 0.0.0.0:0")
    assert err.count("\n") == 1


def test_the_coordinator_in_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text("")
    assert main(["run", "--standalone", "--listen", "0.0.0.0:0", "x.py"]) == 2
    assert "(atoll run: --authority)" in capsys.readouterr().err
    assert main(["run", "--standalone", "--insecure", "--listen", "0.0.0.0:0", "x.py"]) == 0


def test_a_session() -> None:
    with pytest.raises(ConfigError, match=r"ATOLL_BIND_HOST=0\.0\.0\.0"):
        atoll.join({"coordinator": "127.0.0.1:9", "bind_host": "0.0.0.0"})
