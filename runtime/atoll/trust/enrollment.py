"""Signing certificates for joiners: the rules, without a network.

A joiner shows a token and a signing request for a key that it made itself; it gets a certificate in
the name that the token says, or that it asked for if the token leaves that open.

Pure but for random serial numbers: what was used before is asked of, and told to, whoever calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from atoll.errors import ConfigError
from atoll.trust.authority import RequestRefused
from atoll.trust.names import Holder, Role, check_name
from atoll.trust.tokens import Token, TokenRefused, proof_key, verify

if TYPE_CHECKING:
    from atoll.trust.authority import Authority

DEFAULT_DAYS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """What a joiner shows. `request`: PEM."""

    token: str
    island: str
    request: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """An enrollment that is in order, if its token has not been used."""

    token: Token
    holder: Holder


class EnrollmentRefused(Exception):
    """`reason`: a word for metrics; the message is for who asked."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def admit(enrollment: Enrollment, authority: Authority, *, job: str, now: datetime) -> Admission:
    """Raises EnrollmentRefused."""
    try:
        token = verify(enrollment.token, proof_key(authority.key), job=job, now_s=now.timestamp())
    except TokenRefused as error:
        raise EnrollmentRefused("token", str(error)) from None
    if token.island and enrollment.island and token.island != enrollment.island:
        raise EnrollmentRefused(
            "name", f"the token is for island '{token.island}', not '{enrollment.island}'"
        )
    try:
        name = check_name("island", token.island or enrollment.island)
    except ConfigError as error:
        raise EnrollmentRefused("name", str(error)) from None
    return Admission(token=token, holder=Holder(job=job, role=Role.ISLAND, name=name))


def refuse_void(admission: Admission, revoked: Mapping[str, float]) -> None:
    """What a revocation means for tokens that were made before it: those of its name are void, and
    those of no name, which whoever was revoked may hold as well.

    revoked: by name, Unix times. Raises EnrollmentRefused.
    """
    token = admission.token
    if token.island:
        name, at_s = token.island, revoked.get(token.island, 0.0)
    else:
        name, at_s = max(revoked.items(), key=lambda item: item[1], default=("", 0.0))
    if token.made_s > at_s:
        return
    which = "" if token.island else " and names no island"
    raise EnrollmentRefused(
        "revoked",
        f"the token is void: it was made before '{name}' was revoked{which}; "
        "ask the operator for a new one: atoll token",
    )


def certify(
    enrollment: Enrollment,
    admission: Admission,
    authority: Authority,
    *,
    days: float = DEFAULT_DAYS,
    now: datetime,
) -> bytes:
    """The certificate, PEM. Raises EnrollmentRefused."""
    try:
        return authority.issue(enrollment.request, admission.holder, days=days, now=now)
    except RequestRefused as error:
        raise EnrollmentRefused("request", str(error)) from None
