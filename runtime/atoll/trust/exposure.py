"""Whether strangers can reach what listens: then it asks for certificates, or somebody says aloud
that it need not. docs/security.md."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from atoll.config import parse_address
from atoll.errors import ConfigError

SAY_SO = "--insecure, or ATOLL_INSECURE=1, on a network that you trust"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it under this address. Of names, `localhost` alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_coordinator(*, listen: str, advertise: str, trusted: bool, insecure: bool) -> None:
    """Raises ConfigError for a coordinator that strangers reach and that asks for nothing."""
    if trusted or insecure:
        return
    for option, address in (("listens on", listen), ("is advertised at", advertise)):
        try:
            host = parse_address(address)[0] if address else "localhost"
        except ValueError:
            continue  # somebody else says what is wrong with it
        if not is_loopback(host):
            raise ConfigError(
                f"the coordinator {option} {address}, where strangers reach it, without "
                "certificates: make them with atoll certs init and give --tls and --authority "
                f"(atoll run: --authority), or say {SAY_SO}"
            )


def check_island(
    *, bind_host: str, advertise_hosts: Iterable[str], trusted: bool, insecure: bool
) -> None:
    """Raises ConfigError for an island that strangers reach and that asks for nothing."""
    if trusted or insecure:
        return
    named = [("ATOLL_BIND_HOST", bind_host)]
    named += [("ATOLL_ADVERTISE_HOST", host) for host in advertise_hosts]
    for variable, host in named:
        if not is_loopback(host):
            raise ConfigError(
                f"{variable}={host} is where strangers reach this island, and it has no "
                "certificate: get one with a token (ATOLL_TOKEN or --token-file for atoll run, or "
                f"atoll certs enroll), name one with ATOLL_TLS_DIR, or say {SAY_SO}"
            )
