"""Calls of a coordinator with certificates: enroll and revoke; and who may call what.

Thread: the coordinator's loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc

from atoll.control.gate import Caller, Gate
from atoll.membership.events import Redeem, Revoke
from atoll.pb import control_pb2 as pb
from atoll.trust.authority import CLOCK_SKEW
from atoll.trust.enrollment import Enrollment, EnrollmentRefused, admit, certify, refuse_void
from atoll.trust.names import Role, holder_of, may_speak_for, speaks_for
from atoll.trust.remembered import Remembered

if TYPE_CHECKING:
    from atoll.control.term import Term
    from atoll.trust.authority import Authority
    from atoll.trust.identity import Identity

LAST_WORD_S = 1.0


class Trust:
    """What a coordinator does with its certificates. Without an identity everybody may call
    everything, and nobody can be enrolled."""

    def __init__(
        self,
        *,
        job: str,
        identity: Identity | None,
        authority: Authority | None,
        remembered: Remembered | None,
        term: Callable[[], Term | None],
        leading: Callable[[Any], Awaitable[Term]],
        on_refused: Callable[[str], None],
    ) -> None:
        """leading: the term, or the call is aborted. Raises ConfigError for an identity that cannot
        work."""
        self._job = job
        self._authority = authority
        self._remembered = remembered or Remembered(None)
        self._term = term
        self._leading = leading
        self._on_refused = on_refused
        self.gate: Gate | None = None
        if identity is not None:
            holder = identity.checked(datetime.now(UTC))
            _require_coordinator(holder.role, holder.job, job)
            self.gate = Gate(
                identity,
                job=job,
                strangers=authority is not None,
                is_revoked=self._is_revoked,
                on_refused=on_refused,
            )

    def handlers(self) -> dict[str, Any]:
        """For the service's table."""
        return {
            "Enroll": grpc.unary_unary_rpc_method_handler(
                self.enroll,
                request_deserializer=pb.EnrollRequest.FromString,
                response_serializer=pb.EnrollReply.SerializeToString,
            ),
            "Revoke": grpc.unary_unary_rpc_method_handler(
                self.revoke,
                request_deserializer=pb.RevokeRequest.FromString,
                response_serializer=pb.RevokeReply.SerializeToString,
            ),
        }

    def caller(self, context: Any) -> Caller | None:
        """Who calls; None: this coordinator asks for no certificates."""
        return None if self.gate is None else self.gate.caller(context.peer())

    def admits(self, der: bytes) -> bool:
        """Whether who shows this certificate, which TLS has verified, may look at the job. For
        HTTP: any thread."""
        from cryptography import x509

        certificate = x509.load_der_x509_certificate(der)
        try:
            holder = holder_of(certificate)
        except ValueError:
            holder = None
        valid_from_s = certificate.not_valid_before_utc.timestamp()
        caller = Caller(holder=holder, valid_from_s=valid_from_s)
        if holder is not None and holder.job == self._job and not self._is_revoked(caller):
            return True
        self._on_refused("revoked" if holder is not None and holder.job == self._job else "name")
        return False

    def refuses_island(self, caller: Caller | None, island: str) -> str:
        """Why a caller may not be an island of this name; empty: it may."""
        if caller is None or (caller.holder is not None and speaks_for(caller.holder, island)):
            return ""
        self._on_refused("name")
        if caller.holder is None:
            return "joining takes a certificate; get one with a token: atoll certs enroll TOKEN"
        return (
            f"the certificate is that of {caller.holder}, it does not speak for island '{island}'; "
            f"name the island '{caller.holder.name}', or have one made for it"
        )

    async def require(self, context: Any, *roles: Role) -> None:
        """Aborts the call of who has none of these roles."""
        caller = self.caller(context)
        if caller is None or caller.is_a(*roles):
            return
        self._on_refused("role")
        wanted = " or ".join(role.value for role in roles)
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"this takes the certificate of an {wanted}; the caller is {caller.holder or 'nobody'}",
        )

    async def enroll(self, request: pb.EnrollRequest, context: Any) -> pb.EnrollReply:
        authority = self._authority
        if authority is None:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "this coordinator signs no certificates; it was started without --authority",
            )
            raise AssertionError("abort raises")
        term = await self._leading(context)
        enrollment = Enrollment(token=request.token, island=request.island, request=request.request)
        now = datetime.now(UTC)
        try:
            admission = admit(enrollment, authority, job=self._job, now=now)
            # Before the token is spent: a request that cannot be signed costs nothing.
            certificate = certify(enrollment, admission, authority, now=now)
            key = hashlib.sha256(request.request).hexdigest()
            token = admission.token
            self._refuse_used(self._remembered.used_by(token.id), key)
            self._refuse_used(term.machine.redeemed_by(token.id), key)
            # A key that comes again, too. Who is revoked from here on gets a void certificate.
            refuse_void(admission, self._revoked())
            await term.handled(
                Redeem(token=token.id, key=key, expires_s=token.expires_s, unix_s=now.timestamp())
            )
            if self._term() is not term:
                await self._leading(context)
                await context.abort(grpc.StatusCode.UNAVAILABLE, "ask again: the lead has changed")
            self._refuse_used(term.machine.redeemed_by(token.id) or "", key)
            self._remembered.use(token.id, key, expires_s=token.expires_s, now_s=now.timestamp())
        except EnrollmentRefused as refused:
            self._on_refused(refused.reason)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refused))
            raise AssertionError("abort raises") from None
        return pb.EnrollReply(certificate=certificate, authorities=authority.pem)

    def _refuse_used(self, by: str | None, key: str) -> None:
        """Raises EnrollmentRefused for a token that came with another key before."""
        if by not in (None, key):
            raise EnrollmentRefused(
                "used", "the token was used already; ask the operator for another one"
            )

    async def revoke(self, request: pb.RevokeRequest, context: Any) -> pb.RevokeReply:
        await self.require(context, Role.OPERATOR, Role.COORDINATOR)
        term = await self._leading(context)
        islands = sorted(
            island for island in term.machine.islands if request.name in may_speak_for(island)
        )
        now_s = time.time()
        self._remembered.revoke(request.name, now_s)
        await term.handled(Revoke(name=request.name, islands=frozenset(islands), unix_s=now_s))
        if self.gate is not None:  # nobody new comes in; who is there hears why it is put out
            asyncio.get_running_loop().call_later(LAST_WORD_S, self.gate.put_out)
        return pb.RevokeReply(islands=islands)

    def _is_revoked(self, caller: Caller) -> bool:
        if caller.holder is None:
            return False
        issued_s = caller.valid_from_s + CLOCK_SKEW.total_seconds()
        return issued_s <= self._revoked().get(caller.holder.name, 0.0)

    def _revoked(self) -> dict[str, float]:
        """By name, until when what was made is void: by the job's state, or the authority's."""
        term, found = self._term(), dict(self._remembered.revoked)
        # Copies, for `admits` may ask while the coordinator's loop revokes.
        for name, at_s in {} if term is None else dict(term.machine.revoked).items():
            found[name] = max(at_s, found.get(name, 0.0))
        return found


def _require_coordinator(role: Role, own: str, job: str) -> None:
    from atoll.errors import ConfigError

    if role is not Role.COORDINATOR:
        raise ConfigError(
            f"the certificate is that of an {role.value}; a coordinator needs its own: the folder "
            "'coordinator' that atoll certs init makes"
        )
    if own != job:
        raise ConfigError(
            f"the certificate is of job '{own}', this is job '{job}'; name the same with --job"
        )
