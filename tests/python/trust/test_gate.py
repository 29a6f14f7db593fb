"""The coordinator's door: who has a certificate of the job comes in, all others are named."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from atoll.control.gate import Caller, Gate
from atoll.errors import CannotJoin
from atoll.trust.authority import Authority, fingerprint, new_request
from atoll.trust.bootstrap import fetch_authority
from atoll.trust.identity import (
    Identity,
    channel_credentials,
    channel_options,
    stranger_credentials,
)
from atoll.trust.names import Holder, Role
from atoll.trust.tokens import Token
from atoll.trust.why import refusal

JOB = "reef"
NOW = datetime.now(UTC)
AUTHORITY = Authority.create(job=JOB, days=10, now=NOW)


def identity(
    name: str,
    role: Role = Role.ISLAND,
    *,
    job: str = JOB,
    authority: Authority = AUTHORITY,
    now: datetime = NOW,
    believes: Authority = AUTHORITY,
) -> Identity:
    key, request = new_request(name)
    holder = Holder(job=job, role=role, name=name)
    certificate = authority.issue(request, holder, days=1, now=now)
    return Identity(certificate=certificate, key=key, authorities=believes.pem)


class Door:
    """A gate with a gRPC server behind it that tells callers who they are."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.port = 0
        self.revoked: set[str] = set()
        self.held = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def ask(self, credentials: grpc.ChannelCredentials) -> str:
        """What the server makes of a caller. Raises AioRpcError."""
        async with grpc.aio.secure_channel(self.address, credentials, channel_options()) as channel:
            return (await channel.unary_unary("/Door/Who")(b"", timeout=10)).decode()

    async def count(self, reason: str) -> None:
        async with asyncio.timeout(10):
            while not self.gate.refused[reason]:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def door(*, strangers: bool = False) -> AsyncIterator[Door]:
    opened = Door.__new__(Door)
    gate = Gate(
        identity("here", Role.COORDINATOR),
        job=JOB,
        strangers=strangers,
        is_revoked=lambda caller: (
            caller.holder is not None and caller.holder.name in opened.revoked
        ),
    )
    Door.__init__(opened, gate)

    async def who(_: bytes, context: Any) -> bytes:
        caller: Caller = gate.caller(context.peer())
        return str(caller.holder).encode()

    async def stay(_: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"hello"
        opened.held += 1
        await asyncio.Event().wait()

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "Door",
                {
                    "Who": grpc.unary_unary_rpc_method_handler(who),
                    "Stay": grpc.unary_stream_rpc_method_handler(stay),
                },
            ),
        )
    )
    server.add_insecure_port(gate.target)
    await server.start()
    opened.port = await gate.start("127.0.0.1", 0)
    try:
        yield opened
    finally:
        await gate.close()
        await server.stop(0)


def test_members_are_known_by_their_certificates() -> None:
    async def story() -> None:
        async with door() as here:
            asked = [
                here.ask(channel_credentials(identity(name, role)))
                for name, role in (("palm", Role.ISLAND), ("me", Role.OPERATOR))
            ]
            assert await asyncio.gather(*asked) == [
                "island 'palm' of job 'reef'",
                "operator 'me' of job 'reef'",
            ]

    asyncio.run(story())


OTHERS = Authority.create(job=JOB, days=10, now=NOW)
LONG_AGO = NOW - timedelta(days=5)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: stranger_credentials(AUTHORITY.pem), "no_certificate"),
        (lambda: channel_credentials(identity("palm", authority=OTHERS)), "authority"),
        (lambda: channel_credentials(identity("palm", now=LONG_AGO)), "expired"),
        (lambda: channel_credentials(identity("palm", job="atoll")), "job"),
        (lambda: channel_credentials(identity("gone")), "revoked"),
    ],
)
def test_others_are_turned_away_for_a_reason(
    make: Callable[[], grpc.ChannelCredentials], reason: str
) -> None:
    async def story() -> None:
        async with door() as here:
            here.revoked.add("gone")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await here.ask(make())
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            await here.count(reason)
            assert await here.ask(channel_credentials(identity("palm"))) != ""

    asyncio.run(story())


def test_plaintext_and_old_tls_are_turned_away() -> None:
    async def story() -> None:
        async with door() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert b"This port speaks TLS 1.3 alone, with certificates" in await reader.read()
            await here.count("plaintext")
            writer.close()
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname = False
            old.verify_mode = ssl.CERT_NONE
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(ssl.SSLError, match="alert protocol version"):
                await asyncio.open_connection("127.0.0.1", here.port, ssl=old)
            await here.count("old_tls")

    asyncio.run(story())


def test_whoever_is_turned_away_in_the_handshake_is_counted_for_what_it_lacks() -> None:
    async def story() -> None:
        async with door() as here:
            async with grpc.aio.insecure_channel(here.address) as channel:  # no certificate at all
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary("/Door/Who")(b"", timeout=10)
            await here.count("no_certificate")
            foreign = identity("palm", authority=OTHERS, believes=OTHERS)
            with pytest.raises(grpc.aio.AioRpcError):
                await here.ask(channel_credentials(foreign))
            await here.count("authority")  # it has seen our certificate, and hung up
            _, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.close()
            await here.count("silent")
            assert set(here.gate.refused) == {"no_certificate", "authority", "silent"}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: None, "asks for certificates, and none was shown; name yours"),
        (lambda: identity("palm", now=LONG_AGO), "expired at"),
        (
            lambda: identity("palm", authority=OTHERS, believes=OTHERS),
            "not the coordinator of your",
        ),
        (lambda: identity("palm", job="atoll"), "is of job 'atoll', not 'reef'"),
        (lambda: identity("gone"), "island 'gone' of job 'reef' was revoked; ask the job's"),
    ],
)
def test_who_is_turned_away_can_ask_why(make: Callable[[], Any], text: str) -> None:
    async def story() -> None:
        async with door() as here:
            here.revoked.add("gone")
            found = await asyncio.to_thread(refusal, here.address, make(), now=NOW)
            assert text in str(found)
            welcome = identity("palm")
            assert await asyncio.to_thread(refusal, here.address, welcome, now=NOW) is None

    asyncio.run(story())


def test_nobody_is_asked_where_nobody_listens_or_where_it_is_no_question_of_trust() -> None:
    async def story() -> None:
        server = await asyncio.start_server(
            lambda _, w: w.write(b"hello there") or w.close(), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        async with server:
            for own in (None, identity("palm")):
                found = await asyncio.to_thread(refusal, f"127.0.0.1:{port}", own, now=NOW)
                assert ("speaks no TLS" in str(found)) is (own is not None)
        assert refusal(f"127.0.0.1:{port}", None, now=NOW) is None

    asyncio.run(story())


def test_strangers_come_in_only_where_certificates_are_signed() -> None:
    async def story() -> None:
        async with door(strangers=True) as here:
            assert await here.ask(stranger_credentials(AUTHORITY.pem)) == "None"
            with pytest.raises(grpc.aio.AioRpcError):
                await here.ask(channel_credentials(identity("palm", authority=OTHERS)))
            await here.count("authority")

    asyncio.run(story())


def test_who_is_revoked_loses_the_connection_at_once() -> None:
    async def story() -> None:
        async with door() as here:
            credentials = channel_credentials(identity("palm"))
            async with grpc.aio.secure_channel(
                here.address, credentials, channel_options()
            ) as channel:
                call = channel.unary_stream("/Door/Stay")(b"")
                assert await call.read() == b"hello"
                here.revoked.add("palm")
                here.gate.put_out()
                with pytest.raises(grpc.aio.AioRpcError):
                    async with asyncio.timeout(10):
                        await call.read()

    asyncio.run(story())


def test_who_says_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.control.gate.HANDSHAKE_S", 0.2)

    async def story() -> None:
        async with door() as here:
            _, writer = await asyncio.open_connection("127.0.0.1", here.port)
            await here.count("timeout")
            writer.close()

    asyncio.run(story())


def test_a_token_tells_whom_to_believe() -> None:
    def token(authority: Authority, *addresses: str) -> Token:
        return Token(
            id="ab" * 16,
            job=JOB,
            island="",
            enroll=",".join(addresses),
            authority=fingerprint(authority.certificate),
            made_s=0.0,
            expires_s=0.0,
        )

    async def story() -> None:
        async with door(strangers=True) as here, door() as closed:
            dead = "127.0.0.1:1"
            address, pem = await asyncio.to_thread(
                fetch_authority, token(AUTHORITY, dead, here.address), timeout_s=10
            )
            assert (address, pem) == (here.address, AUTHORITY.pem)
            with pytest.raises(CannotJoin, match="its authority is another one"):
                await asyncio.to_thread(fetch_authority, token(OTHERS, here.address), timeout_s=10)
            with pytest.raises(CannotJoin, match="Connection refused"):
                await asyncio.to_thread(fetch_authority, token(AUTHORITY, dead), timeout_s=10)
            signer = token(AUTHORITY, closed.address)
            with pytest.raises(CannotJoin, match="signs no certificates"):
                await asyncio.to_thread(fetch_authority, signer, timeout_s=10)

    asyncio.run(story())
