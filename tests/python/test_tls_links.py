"""Engines over TLS, with certificates that the openssl command makes."""

from __future__ import annotations

import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from atoll import _core, client, errors
from atoll.config import SessionSettings, load

PATIENCE_S = 30.0

E = TypeVar("E")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<name>.pem and <name>.key of two authorities, and of a member of each: a, b."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("a", "b"):
        new_key = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        authority = folder / f"ca-{name}"
        openssl(*new_key, "-x509", "-days", "2", "-subj", f"/CN=ca-{name}",
                "-keyout", f"{authority}.key", "-out", f"{authority}.pem")  # fmt: skip
        openssl(*new_key, "-subj", f"/CN={name}",
                "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", folder / f"{name}.csr", "-days", "2", "-CAcreateserial",
                "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
                "-out", folder / f"{name}.pem")  # fmt: skip
    return folder


def engine_of(number: int, folder: Path, name: str) -> _core.Engine:
    return _core.Engine(
        peer=bytes([number]) * 16,
        secret=bytes(32),
        shared_memory=False,
        checksums=number == 1,
        dial_timeout_s=2.0,
        tls_certificate=(folder / f"{name}.pem").read_text(),
        tls_key=(folder / f"{name}.key").read_text(),
        tls_authorities=(folder / f"ca-{name}.pem").read_text(),
    )


def await_event(engine: _core.Engine, kind: type[E]) -> E:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        readable, _, _ = select.select([engine.event_fd], [], [], deadline - time.monotonic())
        assert readable, f"no {kind.__name__} in time"
        for event in engine.take_events():
            if isinstance(event, kind):
                return event


def test_an_all_reduce_over_tls(certificates: Path) -> None:
    old, young = engine_of(1, certificates, "a"), engine_of(2, certificates, "a")
    members = [bytes([1]) * 16, bytes([2]) * 16]
    old.expect(members[1])
    young.dial(members[0], [("127.0.0.1", 1), ("127.0.0.1", old.port)])  # nobody is at the first
    for engine in (old, young):
        await_event(engine, _core.LinkUp)
        engine.install(1, members, {}, "abort")
        await_event(engine, _core.Installed)
        assert [link.transport for link in engine.stats().links] == ["tls"]
    source = np.arange(100_000, dtype=np.float32)
    targets = [np.zeros_like(source) for _ in members]
    ops = [
        engine.all_reduce(0, source.ctypes.data, target.ctypes.data, source.size)
        for engine, target in zip((old, young), targets, strict=True)
    ]
    for engine, op, target in zip((old, young), ops, targets, strict=True):
        outcome = engine.wait(op, int(PATIENCE_S * 1e9))
        assert outcome is not None
        assert outcome.code == "ok"
        np.testing.assert_array_equal(target, 2 * source)
    for engine in (old, young):
        engine.close()


def test_another_authoritys_member_is_refused(certificates: Path) -> None:
    old, stranger = engine_of(1, certificates, "a"), engine_of(2, certificates, "b")
    old.expect(bytes([2]) * 16)
    stranger.dial(bytes([1]) * 16, "127.0.0.1", old.port)
    assert await_event(stranger, _core.LinkDown).reason == "unreachable"
    assert "TLS" in await_event(old, _core.Refused).message
    assert old.stats().rejected_tls >= 1
    for engine in (old, stranger):
        engine.close()


def test_the_settings_name_files(certificates: Path) -> None:
    def settings(**tls: str) -> SessionSettings:
        return load(SessionSettings, env={}, overrides=tls).value

    whole = {
        "tls_cert": str(certificates / "a.pem"),
        "tls_key": str(certificates / "a.key"),
        "tls_ca": str(certificates / "ca-a.pem"),
    }
    identity = client.identity_of(settings(**whole))
    assert identity is not None
    assert identity.key == (certificates / "a.key").read_bytes()
    assert client.identity_of(settings()) is None
    with pytest.raises(errors.ConfigError, match="not set: tls_key"):
        client.identity_of(settings(tls_cert=whole["tls_cert"], tls_ca=whole["tls_ca"]))
    with pytest.raises(errors.ConfigError, match=r"tls_ca.*No such file"):
        client.identity_of(settings(**(whole | {"tls_ca": "/nowhere.pem"})))
