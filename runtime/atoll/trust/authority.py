"""A job's certificate authority: who signs that an island is one of the job's.

    authority = Authority.create(job="reef", days=90, now=now)
    authority.save(folder)                     # ca.pem, and ca.key that only its owner reads
    key, request = new_request("palm")         # by the island itself: its key never travels
    certificate = authority.issue(request, Holder(...), days=30, now=now)

Keys are ECDSA on P-256; the authority signs no other authority. All functions are pure but for
random numbers and the two that name a folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from atoll.errors import ConfigError
from atoll.trust.names import Holder, check_name

CA_CERTIFICATE, CA_KEY = "ca.pem", "ca.key"

MAX_REQUEST_BYTES = 16 * 1024
"""Of a signing request: one of P-256 takes 500."""

CLOCK_SKEW = timedelta(minutes=10)
"""A certificate is valid a little before it is made, for machines whose clocks are behind."""


class RequestRefused(Exception):
    """A signing request that is none, or not what this authority signs."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, *, job: str, days: float, now: datetime) -> Authority:
        """A new authority for one job, valid for so many days. Raises ConfigError."""
        check_name("job", job)
        if not 0 < days <= 3650:
            raise ConfigError(f"--days {days:g}: expected more than 0 and at most 3650")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "atoll"),
                x509.NameAttribute(NameOID.COMMON_NAME, _common(f"authority of {job}")),
            ]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_job_uri(job))]), False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Raises ConfigError when the folder holds no authority, or a torn one."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / CA_CERTIFICATE).read_bytes())
            key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), None)
        except OSError as error:
            raise ConfigError(
                f"{error.filename}: {error.strerror}; make the job's authority first: "
                f"atoll certs init --dir {folder} --job NAME"
            ) from None
        except ValueError as error:
            raise ConfigError(f"{folder}: no authority of a job: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{folder / CA_KEY}: not a key of this kind of authority")
        if key.public_key() != certificate.public_key():
            raise ConfigError(f"{folder}: {CA_KEY} does not belong to {CA_CERTIFICATE}")
        return cls(certificate, key)

    def save(self, folder: Path) -> None:
        """Writes the two files. Raises ConfigError rather than replacing an authority."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_secret(folder / CA_KEY, key_pem(self.key))
            write_public(folder / CA_CERTIFICATE, self.pem)
        except FileExistsError as error:
            raise ConfigError(
                f"{error.filename} exists: it is another authority, with which islands may have "
                "certificates; name another folder, or remove it by hand"
            ) from None
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from None

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def job(self) -> str:
        """The job that this authority was made for. Raises ConfigError for one of no job."""
        return job_of(self.certificate)

    def issue(self, request: bytes, holder: Holder, *, days: float, now: datetime) -> bytes:
        """A certificate (PEM) for the key of a signing request (PEM), in the name of `holder`.

        Nothing else of the request is believed. It ends with the authority at the latest.
        Raises RequestRefused.
        """
        if len(request) > MAX_REQUEST_BYTES:
            raise RequestRefused(f"a signing request of {len(request)} bytes is too long")
        try:
            parsed = x509.load_pem_x509_csr(request)
            public = parsed.public_key()
            signed = parsed.is_signature_valid
        except (ValueError, TypeError, InvalidSignature) as error:
            raise RequestRefused(f"not a signing request: {error}") from None
        if not signed:
            raise RequestRefused("the signing request is not signed with the key that it names")
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
            raise RequestRefused("the key must be ECDSA on P-256")
        end = min(now + timedelta(days=days), self.certificate.not_valid_after_utc)
        if end <= now:
            raise RequestRefused("the job's authority has expired; make a new one")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _common(holder.name))])
            )
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.UniformResourceIdentifier(holder.uri),
                        x509.DNSName(holder.role.dns_name),
                    ]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
            )
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def new_request(name: str) -> tuple[bytes, bytes]:
    """(private key, signing request), both PEM. The name is for people who look at it."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _common(name))]))
        .sign(key, hashes.SHA256())
    )
    return key_pem(key), request.public_bytes(serialization.Encoding.PEM)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, 64 hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def job_of(certificate: x509.Certificate) -> str:
    """The job of an authority's certificate. Raises ConfigError for one of no job."""
    from atoll.trust.names import SCHEME

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uri = ""
    if not uri.startswith(f"{SCHEME}://"):
        raise ConfigError("the authority was not made by `atoll certs init`: it names no job")
    from urllib.parse import unquote

    return unquote(uri.removeprefix(f"{SCHEME}://"))


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_secret(path: Path, data: bytes) -> None:
    """A new file that only its owner reads. Raises FileExistsError, OSError."""
    _write_new(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """A new file. Raises FileExistsError, OSError."""
    _write_new(path, data, 0o644)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _job_uri(job: str) -> str:
    from urllib.parse import quote

    from atoll.trust.names import SCHEME

    return f"{SCHEME}://{quote(job, safe='')}"


def _common(name: str) -> str:
    return name[:64]  # the longest that the standard allows


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
