"""This process's own certificate, and what it takes for gRPC to use it.

    identity = Identity.read(cert=Path(...), key=Path(...), ca=Path(...))
    channel = grpc.aio.secure_channel(address, channel_credentials(identity), channel_options())

Thread: any; identities are immutable.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.errors import ConfigError
from atoll.trust.names import Holder, Role, holder_of

if TYPE_CHECKING:
    import grpc
    from cryptography import x509
CERT_FILE, KEY_FILE, CA_FILE = "cert.pem", "key.pem", "ca.pem"
"""Of an identity's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate with its chain, its key, and the authorities that others must chain up to; all
    PEM."""

    certificate: bytes
    key: bytes
    authorities: bytes

    @classmethod
    def read(cls, *, cert: Path, key: Path, ca: Path) -> Identity:
        """Raises ConfigError when a file cannot be read."""
        texts = {}
        for name, path in (("tls_cert", cert), ("tls_key", key), ("tls_ca", ca)):
            try:
                texts[name] = path.read_bytes()
            except OSError as error:
                raise ConfigError(f"{name} = {str(path)!r}: {error.strerror}") from None
        return cls(certificate=texts["tls_cert"], key=texts["tls_key"], authorities=texts["tls_ca"])

    @classmethod
    def in_folder(cls, folder: Path) -> Identity:
        """From cert.pem, key.pem and ca.pem. Raises ConfigError when one cannot be read."""
        return cls.read(cert=folder / CERT_FILE, key=folder / KEY_FILE, ca=folder / CA_FILE)

    def checked(self, now: datetime) -> Holder:
        """Whom it speaks for.

        Raises ConfigError when files do not belong together, or the certificate has expired or
        names nobody: sooner, and in plainer words, than a handshake would.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        try:
            certificate = x509.load_pem_x509_certificate(self.certificate)
            key = serialization.load_pem_private_key(self.key, None)
            authorities = x509.load_pem_x509_certificates(self.authorities)
            holder = holder_of(certificate)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"tls_cert, tls_key, tls_ca: {error}") from None
        if key.public_key() != certificate.public_key():
            raise ConfigError("tls_key is not the key of tls_cert")
        if not any(_signed_by(certificate, authority) for authority in authorities):
            raise ConfigError("tls_cert was not signed by an authority in tls_ca")
        if now >= certificate.not_valid_after_utc:
            raise ConfigError(
                f"the certificate of {holder} expired at {certificate.not_valid_after_utc:%F %T} "
                "UTC; have a new one signed: atoll certs issue, or a new token"
            )
        if now < certificate.not_valid_before_utc:
            raise ConfigError(
                f"the certificate of {holder} is not valid before "
                f"{certificate.not_valid_before_utc:%F %T} UTC; this machine's clock may be behind"
            )
        return holder


def load_into(context: ssl.SSLContext, identity: Identity) -> None:
    """Makes a context show this certificate, and believe these authorities. Raises ConfigError."""
    # The ssl module reads keys from files only: in a folder of our own, and for a moment.
    try:
        with tempfile.TemporaryDirectory(prefix="atoll-tls-") as folder:
            path = os.path.join(folder, "identity.pem")
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(identity.key + b"\n" + identity.certificate)
            context.load_cert_chain(path)
        context.load_verify_locations(cadata=identity.authorities.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"tls_cert, tls_key, tls_ca: {error}") from None


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    """For who calls with a certificate of its own. The version of TLS is the gate's to choose."""
    import grpc

    return grpc.ssl_channel_credentials(identity.authorities, identity.key, identity.certificate)


def stranger_credentials(authorities: bytes) -> grpc.ChannelCredentials:
    """For who has no certificate yet, and knows whom to believe."""
    import grpc

    return grpc.ssl_channel_credentials(authorities)


def channel_options(
    options: Sequence[tuple[str, Any]] = (), *, role: Role = Role.COORDINATOR
) -> list[tuple[str, Any]]:
    """These options, and the name that the other side's certificate must carry."""
    return [*options, ("grpc.ssl_target_name_override", role.dns_name)]


def caller(auth_context: Mapping[str, Sequence[bytes]]) -> x509.Certificate | None:
    """The certificate with which somebody called, already verified by TLS; None: without one."""
    from cryptography import x509

    found = auth_context.get("x509_pem_cert", ())
    return x509.load_pem_x509_certificate(bytes(found[0])) if found else None
