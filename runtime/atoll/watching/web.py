"""A small HTTP server for what a process shows of itself: a few paths, GET alone.

Beyond loopback it speaks TLS 1.3 with certificates of the job from both sides, or it does not
listen: who may look at a job is who belongs to it. A name in the Host header that is not this
machine's is refused, or a web page from elsewhere could read it through the visitor's browser.

Threads: one accepts, one serves each connection, up to a bound.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from atoll.errors import ConfigError
from atoll.trust.exposure import is_loopback
from atoll.trust.identity import Identity, load_into

logger = logging.getLogger(__name__)

CONNECTIONS = 64
"""At once; more are turned away."""
PATIENCE_S = 20.0
"""For a request to come, and for a watcher to take what it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer: bytes, or a stream of them that lasts."""

    kind: str
    body: bytes | Iterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


Routes = Mapping[str, Callable[[], Page]]


class WebServer:
    """`listen` once, `close` once."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """0 before it listens."""
        return 0 if self._server is None else int(self._server.server_address[1])

    def listen(
        self,
        host: str,
        port: int,
        identity: Identity | None = None,
        admits: Callable[[bytes], bool] = lambda der: True,
    ) -> int:
        """Returns the port. identity: with which it shows itself beyond loopback; admits: whom it
        serves there, of those whose certificates (DER) the job's authority has signed.

        Raises ConfigError when the address cannot be used, or is not for everybody to see.
        """
        secure = None
        if not is_loopback(host):
            if identity is None:
                raise ConfigError(
                    f"metrics on {host} would show the job to everybody who reaches this machine: "
                    "use 127.0.0.1 (and ssh -L to look at it from elsewhere), or certificates "
                    "(docs/security.md)"
                )
            secure = tls_context(identity)
        try:
            self._server = _Server(host, port, self._routes, secure, admits)
        except OSError as error:
            raise ConfigError(
                f"metrics on {host}:{port}: {error.strerror or error}; choose another port, or 0 "
                "for any"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="atoll-http",
            daemon=True,
        )
        self._thread.start()
        return self.port

    def close(self) -> None:
        """Ends it; idempotent. Streams end when their sources do."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            server.server_close()
            self._thread.join()


def tls_context(identity: Identity) -> ssl.SSLContext:
    """For a server whose callers need a certificate of the job. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    load_into(context, identity)
    return context


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        host: str,
        port: int,
        routes: Routes,
        secure: ssl.SSLContext | None,
        admits: Callable[[bytes], bool],
    ) -> None:
        self._admits = admits
        self.routes = routes
        self.secure = secure
        self.is_local = is_loopback(host)
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host.strip("[]"), port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError):  # what callers do wrong is theirs
            if self.secure is None:
                super().finish_request(request, client_address)
                return
            with self.secure.wrap_socket(request, server_side=True) as secured:
                if self._admits(secured.getpeercert(binary_form=True) or b""):
                    super().finish_request(secured, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    server_version = "atoll"
    sys_version = ""
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        if self.server.is_local and not _is_ours(self.headers.get("Host", "")):
            self.send_error(421, "this server answers to localhost alone")
            return
        route = self.server.routes.get(urlsplit(self.path).path)
        if route is None:
            known = ", ".join(sorted(self.server.routes))
            self.send_error(404, "not found", f"there are {known}")
            return
        page = route()
        self.send_response(200)
        self.send_header("Content-Type", page.kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in page.headers.items():
            self.send_header(name, value)
        if isinstance(page.body, bytes):
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)
            return
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for piece in page.body:
            self.wfile.write(piece)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def _is_ours(host: str) -> bool:
    """Whether a Host header names this machine: localhost, or an address of loopback."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name)
