"""`atoll certs enroll`, and `atoll run --token`: a certificate for a token; `atoll revoke`.

The key is made here and stays here; only a signing request travels.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509

from atoll.control.channel import open_channel
from atoll.errors import CannotJoin, ConfigError
from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc
from atoll.trust.authority import new_request
from atoll.trust.bootstrap import fetch_authority
from atoll.trust.identity import (
    CERT_FILE,
    Identity,
    channel_options,
    stranger_credentials,
)
from atoll.trust.names import Role, holder_of
from atoll.trust.tokens import Token, TokenRefused, read
from atoll.trust.why import refusal
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.trust.certs import save_identity
from atoll_launcher.watch.observer import OPTIONS, find_leader

CALL_TIMEOUT_S = 10.0


def enroll(text: str, *, island: str, folder: Path | None) -> tuple[Identity, Path]:
    """The identity that a token gives, and its folder. One that is there already, and still good,
    is used again, so that the same command can be given twice; one that is void is replaced.

    Raises ConfigError, LauncherError and CannotJoin.
    """
    try:
        token = read(text)
    except TokenRefused as error:
        raise ConfigError(f"--token: {error}") from None
    name = token.island or island or socket.gethostname()
    place = folder or Path(".atoll") / f"identity-{_plain(token.job)}-{_plain(name)}"
    there = Identity.in_folder(place) if (place / CERT_FILE).exists() else None
    if there is not None and not _is_void(there, token, is_named=folder is not None):
        there.checked(datetime.now(UTC))
        return there, place
    key, request = new_request(name)
    address, authority = fetch_authority(token, timeout_s=CALL_TIMEOUT_S)
    certificate = asyncio.run(_signed(token, text, address, authority, name, request))
    identity = Identity(certificate=certificate, key=key, authorities=authority)
    identity.checked(datetime.now(UTC))
    save_identity(place, identity, replace=there is not None)
    return identity, place


def _is_void(there: Identity, token: Token, *, is_named: bool) -> bool:
    """Whether the token is to replace an identity. One that the user has named is his affair, but
    for an island's that has only grown old: `atoll up` comes with a token every time, and whom an
    operator has revoked is not to come back by that."""
    now = datetime.now(UTC)
    try:
        made = x509.load_pem_x509_certificate(there.certificate)
        is_old = now >= made.not_valid_after_utc and holder_of(made).role is Role.ISLAND
    except ValueError:
        return False
    if is_old or is_named:
        return is_old
    return any(refusal(one, there, now=now) for one in token.enroll.split(","))


async def _signed(
    token: Token, text: str, address: str, authority: bytes, island: str, request: bytes
) -> bytes:
    credentials = stranger_credentials(authority)
    message = pb.EnrollRequest(token=text, island=island, request=request)
    async with grpc.aio.secure_channel(address, credentials, channel_options(OPTIONS)) as channel:
        stub = control_pb2_grpc.CoordinatorStub(channel)
        try:
            reply: pb.EnrollReply = await stub.Enroll(message, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise LauncherError(str(error.details()), exit_codes.CANNOT_JOIN) from None
            raise CannotJoin(
                f"the coordinator of job '{token.job}' at {address} did not sign: "
                f"{error.details() or error.code().name.lower()}"
            ) from None
    return reply.certificate


def revoke(addresses: str, name: str, identity: Identity | None) -> list[str]:
    """Islands that were put out. Raises LauncherError."""
    return asyncio.run(_revoke(addresses, name, identity))


async def _revoke(addresses: str, name: str, identity: Identity | None) -> list[str]:
    leader, _ = await find_leader(addresses, identity)
    async with open_channel(leader, identity, OPTIONS) as channel:
        stub = control_pb2_grpc.CoordinatorStub(channel)
        try:
            reply = await stub.Revoke(pb.RevokeRequest(name=name), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise LauncherError(
                f"not revoked: {error.details() or error.code().name.lower()}",
                exit_codes.CANNOT_JOIN,
            ) from None
    return list(reply.islands)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
