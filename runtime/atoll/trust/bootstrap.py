"""The first words of a joiner that has only a token: whom to believe.

The coordinator tells anybody the certificate of the job's authority; the joiner believes it if it
is the one whose fingerprint is in the token.
"""

from __future__ import annotations

import socket
import ssl

from atoll.config import parse_address, parse_addresses
from atoll.errors import CannotJoin
from atoll.trust.tokens import Token

ALPN_AUTHORITY, ALPN_WHY = "atoll-ca", "atoll-why"
MAX_BYTES = 64 * 1024


def fetch_authority(token: Token, *, timeout_s: float) -> tuple[str, bytes]:
    """(the address that answered, the authority's certificate as PEM).

    Raises CannotJoin when no address answers in time, or one answers with another authority.
    """
    problems = []
    for address in parse_addresses(token.enroll):
        try:
            pem = _ask(address, timeout_s)
        except OSError as error:
            problems.append(f"{address}: {error.strerror or error}")
            continue
        if not pem:
            problems.append(f"{address}: it signs no certificates; start it with --authority")
            continue
        found = _matching(pem, token.authority)
        if found is None:
            raise CannotJoin(
                f"{address} is not the coordinator of the token: its authority is another one; "
                "ask the operator for a token of this job, and look who answers there"
            )
        return address, found
    raise CannotJoin(
        f"no coordinator of job '{token.job}' answers: {'; '.join(problems)}; "
        "check that it runs there and that the address is reachable from here"
    )


def _ask(address: str, timeout_s: float) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what it says is compared with the token instead
    context.set_alpn_protocols([ALPN_AUTHORITY])
    data = b""
    with (
        socket.create_connection(parse_address(address), timeout=timeout_s) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        while len(data) <= MAX_BYTES:
            try:
                piece = wrapped.recv(MAX_BYTES)
            except (ssl.SSLError, ConnectionResetError):  # it ended it, in one way or another
                break
            if not piece:
                break
            data += piece
    return data


def _matching(pem: bytes, wanted: str) -> bytes | None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from atoll.trust.authority import fingerprint

    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return None
    for certificate in certificates:
        if fingerprint(certificate) == wanted:
            return certificate.public_bytes(Encoding.PEM)
    return None
