"""Why a coordinator turns a caller away, found out by asking it: gRPC says that nobody answers.

The certificate is looked through first, then shown in a handshake of our own, in which the
coordinator says what it has against it (`atoll.control.gate`). Blocking; any thread.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from atoll.config import parse_address
from atoll.errors import ConfigError
from atoll.trust.bootstrap import ALPN_WHY
from atoll.trust.identity import load_into
from atoll.trust.names import Role

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

MOST_BYTES = 4096
ASK = (
    "name yours (--tls DIR, or ATOLL_TLS_DIR; the operator's is in the authority's folder, as "
    "certs/operator), or get one with a token (atoll certs enroll)"
)
ANEW = "ask the job's operator for a token (atoll token), or name the right certificate (--tls DIR)"
PLAIN = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST")
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "your certificate is not of the job's authority",
    "SSLV3_ALERT_BAD_CERTIFICATE": "your certificate is not of the job's authority",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "your certificate is not valid by the coordinator's clock",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is wrong, and what to do about it; empty: the text says that as well."""

    text: str
    step: str

    def __str__(self) -> str:
        return f"{self.text}; {self.step}" if self.step else self.text


def refusal(
    address: str, identity: Identity | None, *, now: datetime, timeout_s: float = 3.0
) -> Refusal | None:
    """What is wrong between this certificate and the coordinator at HOST:PORT.

    None when it is nothing about trust: nobody listens there, or it would take the call.
    """
    if identity is not None:
        try:
            identity.checked(now)
        except ConfigError as error:
            return Refusal(text=str(error), step="" if ";" in str(error) else ANEW)
    try:
        plain = socket.create_connection(parse_address(address), timeout=timeout_s)
    except OSError:
        return None
    with plain:
        return _asked(plain, identity)


def _asked(plain: socket.socket, identity: Identity | None) -> Refusal | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN_WHY])
    if identity is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        load_into(context, identity)
    try:
        with context.wrap_socket(plain, server_hostname=Role.COORDINATOR.dns_name) as wrapped:
            if identity is None:
                return Refusal(text="the job asks for certificates, and none was shown", step=ASK)
            if wrapped.selected_alpn_protocol() != ALPN_WHY:
                return None
            said = wrapped.recv(MOST_BYTES).decode("utf-8", errors="replace").strip()
    except ssl.SSLCertVerificationError as error:
        return Refusal(
            text="who answers there is not the coordinator of your certificate's job "
            f"({error.verify_message})",
            step="is it the right address? The job may have another authority by now: " + ANEW,
        )
    except ssl.SSLError as error:
        return _broken(error.reason or "", identity)
    except OSError:
        return None
    return Refusal(text=said, step=ANEW) if said else None


def _broken(reason: str, identity: Identity | None) -> Refusal | None:
    if identity is None:
        return None
    if reason in PLAIN:
        return Refusal(
            text="a certificate was shown, and what listens there speaks no TLS",
            step="if the job has no certificates, leave yours out (--tls, ATOLL_TLS_DIR)",
        )
    text = _ALERTS.get(reason, f"the handshake failed ({reason.lower() or 'no reason given'})")
    return Refusal(text=text, step=ANEW)
