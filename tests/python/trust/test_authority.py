"""Certificates: whom they name, what is not signed, what a damaged folder gives."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import ConfigError
from atoll.trust.authority import Authority, RequestRefused, fingerprint, new_request
from atoll.trust.enrollment import Enrollment, EnrollmentRefused, admit, certify
from atoll.trust.identity import Identity
from atoll.trust.names import Holder, Role, holder_of, parse_uri, speaks_for, uris_of
from atoll.trust.tokens import Token, encode, proof_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PALM = Holder(job="reef / night", role=Role.ISLAND, name="palm")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(job=PALM.job, days=90, now=NOW)


def token_for(authority: Authority, island: str = "") -> str:
    token = Token(
        id="ab" * 16,
        job=authority.job,
        island=island,
        enroll="coral:7001",
        authority=fingerprint(authority.certificate),
        made_s=NOW.timestamp(),
        expires_s=NOW.timestamp() + 60,
    )
    return encode(token, proof_key(authority.key))


def test_a_certificate_names_its_holder_for_the_key_that_it_made(authority: Authority) -> None:
    key, request = new_request("palm")
    pem = authority.issue(request, PALM, days=30, now=NOW)
    certificate = x509.load_pem_x509_certificate(pem)
    assert holder_of(certificate) == PALM
    identity = Identity(certificate=pem, key=key, authorities=authority.pem)
    assert identity.checked(NOW) == PALM
    assert certificate.not_valid_after_utc == NOW + timedelta(days=30)


def test_openssl_agrees(authority: Authority, tmp_path: Path) -> None:
    _, request = new_request("palm")
    for name, data in (
        ("ca", authority.pem),
        ("palm", authority.issue(request, PALM, days=30, now=NOW)),
    ):
        (tmp_path / name).write_bytes(data)
    at = str(int(NOW.timestamp()) + 1)
    for purpose in ("sslclient", "sslserver"):
        command = ["openssl", "verify", "-attime", at, "-purpose", purpose, "-CAfile", "ca", "palm"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_folder_is_written_once_and_read_by_its_owner_alone(
    authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "certs"
    authority.save(folder)
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    again = Authority.load(folder)
    assert again.pem == authority.pem
    assert again.job == PALM.job
    with pytest.raises(ConfigError, match="another authority"):
        authority.save(folder)
    (folder / "ca.pem").write_bytes(Authority.create(job="x", days=1, now=NOW).pem)
    with pytest.raises(ConfigError, match="does not belong"):
        Authority.load(folder)
    with pytest.raises(ConfigError, match="atoll certs init"):
        Authority.load(tmp_path / "nowhere")


def test_nothing_outlives_its_authority(authority: Authority) -> None:
    _, request = new_request("palm")
    late = NOW + timedelta(days=80)
    pem = authority.issue(request, PALM, days=30, now=late)
    end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    assert end == authority.certificate.not_valid_after_utc
    with pytest.raises(RequestRefused, match="expired"):
        authority.issue(request, PALM, days=30, now=NOW + timedelta(days=91))


def test_requests_that_are_none_are_refused(authority: Authority) -> None:
    big = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    other = ec.generate_private_key(ec.SECP384R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for request in (
        b"",
        b"garbage",
        b"x" * 100_000,
        builder.sign(big, SHA256()).public_bytes(Encoding.PEM),
        builder.sign(other, SHA256()).public_bytes(Encoding.PEM),
        authority.pem,
    ):
        with pytest.raises(RequestRefused):
            authority.issue(request, PALM, days=1, now=NOW)


def test_an_identity_that_cannot_work_says_why(authority: Authority) -> None:
    key, request = new_request("palm")
    pem = authority.issue(request, PALM, days=30, now=NOW)
    foreign = Authority.create(job=PALM.job, days=90, now=NOW)
    cases = [
        (
            Identity(certificate=pem, key=new_request("x")[0], authorities=authority.pem),
            NOW,
            "not the key",
        ),
        (Identity(certificate=pem, key=key, authorities=foreign.pem), NOW, "not signed by"),
        (
            Identity(certificate=pem, key=key, authorities=authority.pem),
            NOW + timedelta(days=31),
            "expired",
        ),
        (
            Identity(certificate=pem, key=key, authorities=authority.pem),
            NOW - timedelta(days=1),
            "clock",
        ),
        (Identity(certificate=b"x", key=key, authorities=authority.pem), NOW, "tls_cert"),
    ]
    for identity, now, words in cases:
        with pytest.raises(ConfigError, match=words):
            identity.checked(now)


def test_a_joiner_gets_a_certificate_in_the_name_of_its_token(authority: Authority) -> None:
    _, request = new_request("anything")
    for token_island, asked, got in (
        ("palm", "", "palm"),
        ("palm", "palm", "palm"),
        ("", "fern", "fern"),
    ):
        enrollment = Enrollment(
            token=token_for(authority, token_island), island=asked, request=request
        )
        admission = admit(enrollment, authority, job=PALM.job, now=NOW)
        pem = certify(enrollment, admission, authority, now=NOW)
        assert holder_of(x509.load_pem_x509_certificate(pem)).name == got


def test_a_joiner_is_refused_for_a_reason(authority: Authority) -> None:
    _, request = new_request("palm")
    other = Authority.create(job=PALM.job, days=90, now=NOW)
    late = NOW + timedelta(minutes=2)
    for token, island, now, reason in (
        (token_for(other), "palm", NOW, "token"),
        (token_for(authority), "palm", late, "token"),
        (token_for(authority, "palm"), "fern", NOW, "name"),
        (token_for(authority), "", NOW, "name"),
        (token_for(authority), "two\nlines", NOW, "name"),
    ):
        enrollment = Enrollment(token=token, island=island, request=request)
        with pytest.raises(EnrollmentRefused) as refused:
            admit(enrollment, authority, job=PALM.job, now=now)
        assert refused.value.reason == reason


def test_whom_a_certificate_speaks_for() -> None:
    assert speaks_for(PALM, "palm")
    assert speaks_for(PALM, "palm-0")
    assert speaks_for(PALM, "palm-12")
    for island in ("fern", "palm-", "palm-x", "palma", "palm-0-1", ""):
        assert not speaks_for(PALM, island)
    operator = Holder(job=PALM.job, role=Role.OPERATOR, name="palm")
    assert not speaks_for(operator, "palm")


@given(st.text(min_size=1, max_size=3), st.sampled_from(["", "-", "-0", "-12", "-x", "-0-1"]))
def test_links_accept_the_names_that_registration_does(name: str, more: str) -> None:
    """What the core compares letter by letter says the same as what the coordinator asks."""
    island = name + more
    try:
        accepted = uris_of("reef", island)
    except UnicodeEncodeError:
        return
    for holder in (name, island, f"{name}-0"):
        for role in Role:
            one = Holder(job="reef", role=role, name=holder)
            assert (one.uri in accepted) == speaks_for(one, island)
    assert Holder(job="atoll", role=Role.ISLAND, name=island).uri not in accepted


@settings(max_examples=100)
@given(st.text(min_size=1), st.sampled_from(Role), st.text(min_size=1))
def test_names_come_back_from_their_uris(job: str, role: Role, name: str) -> None:
    try:
        holder = Holder(job=job, role=role, name=name)
        uri = holder.uri
    except UnicodeEncodeError:
        return
    assert parse_uri(uri) == holder
