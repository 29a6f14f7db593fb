"""The coordinator's site: its page and what feeds it, metrics, and where the islands' are."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from atoll.watching.board import Board
from atoll.watching.web import Page, WebServer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from atoll.trust.identity import Identity


def coordinator_site(
    board: Board, registry: CollectorRegistry, identity: Identity | None
) -> WebServer:
    """/, /events, /metrics and /sd. identity: of a job with certificates, whose islands serve over
    TLS where they are not on loopback."""
    return WebServer(
        {
            "/": page,
            "/events": lambda: Page(kind="text/event-stream", body=board.stream()),
            "/metrics": lambda: metrics_page(registry),
            "/sd": lambda: Page(
                kind="application/json", body=board.targets(secure=identity is not None)
            ),
        }
    )


def metrics_page(registry: CollectorRegistry) -> Page:
    """A scrape."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return Page(kind=CONTENT_TYPE_LATEST, body=generate_latest(registry))


@functools.cache
def page() -> Page:
    """The page: one file, which may run its own script and ask its own server, and nothing else."""
    text = files("atoll.watching").joinpath("page.html").read_bytes()
    sources = {
        kind: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(body).digest()).decode()}'"
            for body in re.findall(rb"<%b>(.*?)</%b>" % (kind.encode(), kind.encode()), text, re.S)
        )
        for kind in ("script", "style")
    }
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {sources['script']}; "
        f"style-src {sources['style']}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(
        kind="text/html; charset=utf-8",
        body=text,
        headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"},
    )
