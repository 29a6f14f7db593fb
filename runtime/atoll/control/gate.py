"""The coordinator's front door when a job has certificates: TLS 1.3, and who is let in.

    stranger, peer, operator --TLS 1.3--> Gate --Unix socket--> gRPC server

gRPC for Python cannot say which version of TLS it wants, why a handshake failed, or take somebody
without a certificate on one port and for one call alone. So TLS ends here, in front of it: each
connection is carried on to the gRPC server through a Unix socket in a folder that nobody else may
enter, bound to a name of its own, by which the server asks who it is (`caller`).

Thread: the coordinator's loop, which owns all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import socket
import ssl
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atoll.trust.bootstrap import ALPN_AUTHORITY, ALPN_WHY
from atoll.trust.identity import Identity, load_into
from atoll.trust.names import Holder, Role, holder_of

logger = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
ALPN_CALLS = "h2"
"""A connection is for calls; or to be told the authority's certificate (ALPN_AUTHORITY), which
whoever asks compares with the fingerprint in its token before it believes anything; or why calls of
this caller are refused (ALPN_WHY)."""
STRANGERS = 64
"""Connections whose handshake is not over, or which have no certificate. More are turned away."""
STRANGER_S = 30.0
"""How long one without a certificate may stay: for signing one, seconds are enough."""
PIECE_BYTES = 64 * 1024
LAST_WORD_S = 1.0
OLD_TLS_ALERT = bytes((21, 3, 1, 0, 2, 2, 70))
"""A record with a fatal alert, protocol_version (RFC 8446, 6.2)."""
PLAIN_ANSWER = (
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\n\r\n"
    b"This port speaks TLS 1.3 alone, with certificates: atoll status --tls DIR HOST:PORT\n"
)
TLS_BEGINS, GRPC_BEGINS = b"\x16", b"PRI"
"""First bytes: of a TLS handshake, and of calls in the clear, whose caller has no certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is at the other end of a connection; no holder: somebody without a certificate."""

    holder: Holder | None
    valid_from_s: float = 0.0
    """Unix time from which the certificate is valid."""
    address: str = ""
    """Where it comes from, without a port."""

    def is_a(self, *roles: Role) -> bool:
        return self.holder is not None and self.holder.role in roles


class Gate:
    """`start` once, `close` once. `refused` counts by reason: silent, plaintext, old_tls,
    no_certificate, authority, expired, job, name, revoked, overload, timeout, tls."""

    def __init__(
        self,
        identity: Identity,
        *,
        job: str,
        strangers: bool,
        is_revoked: Callable[[Caller], bool],
        on_refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """strangers: let in who has no certificate, for signing one. Raises ConfigError when the
        identity cannot work."""
        self._job = job
        self._is_revoked = is_revoked
        self._on_refused = on_refused
        self.refused: Counter[str] = Counter()
        self._folder = Path(tempfile.mkdtemp(prefix="atoll-gate-"))
        self._authorities = identity.authorities
        self._context = _context(identity, strangers=strangers)
        self._numbers = itertools.count(1)
        self._callers: dict[str, Caller] = {}
        self._tasks: dict[asyncio.Task[None], Caller | None] = {}
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    @property
    def target(self) -> str:
        """Where the gRPC server has to listen."""
        return f"unix:{self._folder / 'server'}"

    def caller(self, peer: str) -> Caller:
        """Who is behind what gRPC calls `context.peer()`."""
        return self._callers.get(peer.removeprefix("unix:"), Caller(holder=None))

    async def start(self, host: str, port: int) -> int:
        """Listens; the port. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((host, port))
            listener.listen(512)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener), name="atoll-gate")
        return int(listener.getsockname()[1])

    async def close(self) -> None:
        """Ends all connections."""
        tasks = [*self._tasks, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def put_out(self) -> None:
        """Ends the connections of those who have been revoked since they came."""
        for task, caller in list(self._tasks.items()):
            if caller is not None and self._is_revoked(caller):
                task.cancel()

    # --- within -----------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:  # no descriptors left, say
                logger.warning("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            if sum(1 for caller in self._tasks.values() if _is_stranger(caller)) >= STRANGERS:
                self._refuse("overload")
                accepted.close()
                continue
            task = asyncio.create_task(self._serve(accepted))
            self._tasks[task] = None
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a connection failed", exc_info=task.exception())

    async def _serve(self, accepted: socket.socket) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            _require_tls(await _first_bytes(accepted))
            with accepted.dup() as voice:
                reader, writer = await _handshake(accepted, self._context, voice)
        except _Refused as refused:
            if refused.reason == "plaintext":
                _tell(accepted, PLAIN_ANSWER)
            accepted.close()
            self._refuse(refused.reason, str(refused))
            return
        except TimeoutError:
            accepted.close()
            self._refuse("timeout")
            return
        except (OSError, ssl.SSLError) as error:
            accepted.close()
            self._refuse(_reason(error), str(error))
            return
        try:
            wanted = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            if wanted == ALPN_AUTHORITY:
                writer.write(self._authorities)
                await _flushed(writer)
                return
            if wanted == ALPN_WHY:
                writer.write(self._why(writer).encode())
                await _flushed(writer)
                return
            caller = self._identify(writer)
            task = asyncio.current_task()
            assert task is not None
            self._tasks[task] = caller
            limit_s = STRANGER_S if caller.holder is None else None
            async with asyncio.timeout(limit_s):
                await self._carry(caller, reader, writer)
        except _Refused as refused:
            self._refuse(refused.reason, str(refused))
        except OSError:  # TimeoutError is one
            pass
        finally:
            # Not close(), which would wait for the other side's last word.
            writer.transport.abort()

    def _why(self, writer: asyncio.StreamWriter) -> str:
        """What is told of a caller whose certificate is one of the job's authority."""
        try:
            known = self._identify(writer).holder is not None
        except _Refused as refused:
            self._refuse(refused.reason, str(refused))
            return str(refused)
        return "" if known else "no certificate was shown"

    def _identify(self, writer: asyncio.StreamWriter) -> Caller:
        from cryptography import x509

        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if der is None:
            return Caller(holder=None, address=address)
        certificate = x509.load_der_x509_certificate(der)
        try:
            holder = holder_of(certificate)
        except ValueError as error:
            raise _Refused("name", str(error)) from None
        valid_from_s = certificate.not_valid_before_utc.timestamp()
        caller = Caller(holder=holder, valid_from_s=valid_from_s, address=address)
        if holder.job != self._job:
            raise _Refused("job", f"the certificate is of job '{holder.job}', not '{self._job}'")
        if self._is_revoked(caller):
            raise _Refused("revoked", f"the certificate of {holder} was revoked")
        return caller

    async def _carry(
        self, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Between the caller and the server, until either has had enough."""
        name = str(self._folder / str(next(self._numbers)))
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        inner.setblocking(False)
        try:
            inner.bind(name)
            os.unlink(name)
            self._callers[name] = caller
            await asyncio.get_running_loop().sock_connect(inner, str(self._folder / "server"))
            to_server, from_server = await asyncio.open_unix_connection(sock=inner)
        except OSError:
            inner.close()
            self._callers.pop(name, None)
            raise
        pumps = [
            asyncio.create_task(_pump(reader, from_server)),
            asyncio.create_task(_pump(to_server, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            from_server.close()
            self._callers.pop(name, None)

    def _refuse(self, reason: str, message: str = "") -> None:
        self.refused[reason] += 1
        self._on_refused(reason)
        logger.info("turned somebody away: %s%s", reason, f" ({message})" if message else "")


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _is_stranger(caller: Caller | None) -> bool:
    return caller is None or caller.holder is None


def _context(identity: Identity, *, strangers: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN_CALLS, ALPN_AUTHORITY, ALPN_WHY])
    context.verify_mode = ssl.CERT_OPTIONAL if strangers else ssl.CERT_REQUIRED
    context.num_tickets = 0  # every connection shows its certificate
    load_into(context, identity)
    return context


async def _first_bytes(accepted: socket.socket) -> bytes:
    """What a caller begins with, and it stays there to be read; nothing: it has hung up. Raises
    TimeoutError and OSError."""
    loop = asyncio.get_running_loop()
    accepted.setblocking(False)
    readable = asyncio.Event()
    loop.add_reader(accepted, readable.set)
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            await readable.wait()
    finally:
        loop.remove_reader(accepted)
    try:
        return accepted.recv(max(len(TLS_BEGINS), len(GRPC_BEGINS)), socket.MSG_PEEK)
    except ConnectionResetError:
        return b""


def _require_tls(first: bytes) -> None:
    """Raises _Refused."""
    if not first:
        raise _Refused("silent", "it hung up without a word")
    if first.startswith(GRPC_BEGINS):
        raise _Refused("no_certificate", "it calls in the clear")
    if not first.startswith(TLS_BEGINS):
        raise _Refused("plaintext", "it speaks no TLS")


def _tell(caller: socket.socket, words: bytes) -> None:
    """A last word to who is turned away, if there is room for it."""
    with contextlib.suppress(OSError):
        caller.send(words)
        # What nobody has read would make the end a reset, which takes that word along.
        caller.recv(PIECE_BYTES)


async def _handshake(
    accepted: socket.socket, context: ssl.SSLContext, voice: socket.socket
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    accepted.setblocking(False)
    reader = asyncio.StreamReader(limit=PIECE_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, accepted, ssl=context, ssl_handshake_timeout=HANDSHAKE_S
        )
    except ssl.SSLError as error:
        # asyncio drops what OpenSSL has to say at the end.
        if _reason(error) == "old_tls":
            _tell(voice, OLD_TLS_ALERT)
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
        await _flushed(writer)


async def _flushed(writer: asyncio.StreamWriter) -> None:
    """Until the kernel has all that was written, for a bounded time."""
    writer.transport.set_write_buffer_limits(high=0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORD_S):
            await writer.drain()


_REASONS = {
    "UNSUPPORTED_PROTOCOL": "old_tls",
    "VERSION_TOO_LOW": "old_tls",
    "NO_PROTOCOLS_AVAILABLE": "old_tls",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    # The caller does not believe us: it knows another authority.
    "TLSV1_ALERT_UNKNOWN_CA": "authority",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "authority",
    "SSLV3_ALERT_BAD_CERTIFICATE": "authority",
}
_EXPIRED = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "expired" if error.verify_code in _EXPIRED else "authority"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return _REASONS.get(error.reason or "", "tls")
    if "timeout" in str(error) or "longer than" in str(error):
        return "timeout"
    # It began a handshake and hung up when it saw our certificate, as gRPC does, without a word.
    return "authority"
