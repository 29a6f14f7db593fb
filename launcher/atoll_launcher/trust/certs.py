"""`atoll certs` and `atoll token`: a job's authority, certificates, and tokens to get one with.

A folder of an authority:

    DIR/ca.pem, ca.key              the authority; keep ca.key where only the coordinator reads it
    DIR/NAME/{cert,key,ca}.pem      an identity, what `--tls DIR/NAME` and ATOLL_TLS_DIR want
"""

from __future__ import annotations

import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path

from atoll.config import parse_addresses
from atoll.errors import ConfigError
from atoll.trust.authority import Authority, fingerprint, new_request, write_public, write_secret
from atoll.trust.identity import CA_FILE, CERT_FILE, KEY_FILE, Identity
from atoll.trust.names import Holder, Role, check_name
from atoll.trust.tokens import Token, check_life, encode, proof_key

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_life(text: str) -> float:
    """Seconds of `90s`, `15m`, `2h`, `7d`. Raises ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise ConfigError(f"--ttl {text!r}: expected a time such as 90s, 15m, 2h or 1d")
    return check_life(float(found[1]) * _UNITS_S[found[2]])


def make_authority(job: str, folder: Path, *, days: float) -> list[str]:
    """A new authority in `folder`, with the identities of a coordinator and an operator; what to
    say about it. Raises ConfigError."""
    now = datetime.now(UTC)
    authority = Authority.create(job=job, days=days, now=now)
    authority.save(folder)
    for role in (Role.COORDINATOR, Role.OPERATOR):
        _issue(authority, folder / role.value, role=role, name=role.value, days=days, now=now)
    return [
        f"authority of job '{job}' in {folder}, valid for {days:g} days",
        f"  {folder}/ca.key       signs who belongs to the job; keep it with the coordinator",
        f"  {folder}/coordinator  "
        f"atoll coordinator --tls {folder}/coordinator --authority {folder} ...",
        f"  {folder}/operator     atoll status --tls {folder}/operator HOST:PORT",
        f"next: atoll token --dir {folder} --enroll HOST:PORT   for each island that is to join",
    ]


def issue_island(folder: Path, name: str, out: Path | None, *, days: float) -> list[str]:
    """An island's identity, made here: for whoever can copy a key safely. Raises ConfigError."""
    authority = Authority.load(folder)
    check_name("island", name)
    place = out or folder / re.sub(r"[^\w.-]", "_", name)
    _issue(authority, place, role=Role.ISLAND, name=name, days=days, now=datetime.now(UTC))
    return [
        f"identity of island '{name}' in {place}, valid for {days:g} days",
        f"on its machine: ATOLL_TLS_DIR={place} atoll run --join HOST:PORT SCRIPT",
    ]


def make_token(folder: Path, enroll: str, island: str, ttl: str) -> str:
    """A token for one island, as text. Raises ConfigError."""
    authority = Authority.load(folder)
    try:
        parse_addresses(enroll)
    except ValueError as error:
        raise ConfigError(f"--enroll {enroll!r}: {error}") from None
    if island:
        check_name("island", island)
    now_s = datetime.now(UTC).timestamp()
    token = Token(
        id=secrets.token_hex(16),
        job=authority.job,
        island=island,
        enroll=enroll,
        authority=fingerprint(authority.certificate),
        made_s=now_s,
        expires_s=now_s + parse_life(ttl),
    )
    return encode(token, proof_key(authority.key))


def show(place: Path, *, as_json: bool) -> list[str]:
    """Who an identity's folder, or a PEM file, speaks for, and until when. Raises ConfigError."""
    from cryptography import x509

    from atoll.trust.names import holder_of

    path = place / CERT_FILE if place.is_dir() else place
    if place.is_dir() and not path.exists():
        path = place / "ca.pem"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: no certificate: {error}") from None
    try:
        holder = str(holder_of(certificate))
    except ValueError:
        holder = certificate.subject.rfc4514_string()
    end = certificate.not_valid_after_utc
    left_days = (end - datetime.now(UTC)).total_seconds() / 86400
    facts = {
        "holder": holder,
        "expires": end.isoformat(),
        "days_left": round(left_days, 2),
        "serial": f"{certificate.serial_number:x}",
        "sha256": fingerprint(certificate),
    }
    if as_json:
        return [json.dumps(facts)]
    state = f"{left_days:.1f} days left" if left_days > 0 else "EXPIRED"
    return [f"{holder}: until {end:%F %T} UTC ({state})", f"sha256 {facts['sha256']}"]


def save_identity(folder: Path, identity: Identity, *, replace: bool = False) -> None:
    """Writes the three files of a new identity, and never over another one unless told to. Raises
    ConfigError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if replace:
            for name in (CERT_FILE, KEY_FILE, CA_FILE):
                (folder / name).unlink(missing_ok=True)
        write_secret(folder / KEY_FILE, identity.key)
        write_public(folder / CERT_FILE, identity.certificate)
        write_public(folder / CA_FILE, identity.authorities)
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename} exists: an identity is there already; name another folder"
        ) from None
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None


def _issue(
    authority: Authority, place: Path, *, role: Role, name: str, days: float, now: datetime
) -> None:
    key, request = new_request(name)
    holder = Holder(job=authority.job, role=role, name=name)
    certificate = authority.issue(request, holder, days=days, now=now)
    save_identity(place, Identity(certificate=certificate, key=key, authorities=authority.pem))
