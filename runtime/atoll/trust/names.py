"""What a certificate of a job says about its holder, and how it is read.

A certificate names its holder once, as a URI among its subject's alternative names:

    atoll://JOB/island/NAME         an island
    atoll://JOB/coordinator/NAME    a coordinator
    atoll://JOB/operator/NAME       somebody who may drain, revoke, stop

It also carries the DNS name `ROLE.atoll`, the same for all of a role, because TLS libraries compare
host names and an island has none that lasts. Nothing else in a certificate means anything here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from atoll.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509

SCHEME = "atoll"
MAX_NAME = 200
"""Characters of a job's or a holder's name."""


class Role(enum.Enum):
    ISLAND = "island"
    COORDINATOR = "coordinator"
    OPERATOR = "operator"

    @property
    def dns_name(self) -> str:
        """The name that TLS compares."""
        return f"{self.value}.atoll"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whom a certificate speaks for."""

    job: str
    role: Role
    name: str

    @property
    def uri(self) -> str:
        return (
            f"{SCHEME}://{quote(self.job, safe='')}/{self.role.value}/{quote(self.name, safe='')}"
        )

    def __str__(self) -> str:
        return f"{self.role.value} '{self.name}' of job '{self.job}'"


def check_name(what: str, name: str) -> str:
    """Returns the name. Raises ConfigError for one that no certificate can carry."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(
            f"{what} {name!r}: expected 1 to {MAX_NAME} printable characters, with no line breaks"
        )
    return name


def may_speak_for(island: str) -> tuple[str, ...]:
    """Whose certificate an island of this name may use: its own, and as `palm-0`, `palm-1`, ...
    also that of `palm`, the one of a machine's islands."""
    stem, dash, number = island.rpartition("-")
    return (island, stem) if dash and stem and number.isdigit() else (island,)


def speaks_for(holder: Holder, island: str) -> bool:
    """Whether a certificate may be used by an island of this name."""
    return holder.role is Role.ISLAND and holder.name in may_speak_for(island)


def uris_of(job: str, island: str) -> list[str]:
    """What the certificate of an island of this name may say."""
    return [Holder(job=job, role=Role.ISLAND, name=name).uri for name in may_speak_for(island)]


def parse_uri(uri: str) -> Holder:
    """Raises ValueError for what is no name of a holder."""
    parts = urlsplit(uri)
    pieces = parts.path.split("/")
    if parts.scheme != SCHEME or not parts.netloc or len(pieces) != 3 or not pieces[2]:
        raise ValueError(f"{uri!r} names no member of a job")
    # Not parts.hostname, which is lower case.
    return Holder(job=unquote(parts.netloc), role=Role(pieces[1]), name=unquote(pieces[2]))


def holder_of(certificate: x509.Certificate) -> Holder:
    """Raises ValueError when the certificate names nobody, or more than one."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate has no alternative names") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise ValueError(f"the certificate names {len(uris)} holders, not one")
    return parse_uri(uris[0])
