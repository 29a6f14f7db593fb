"""The commands about a running job: `atoll drain`, `kill`, `revoke`, `logs`, `top`: operate.md."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from atoll_launcher import exit_codes
from atoll_launcher.trust.commands import TLS, identity

WHERE = "[HOST:PORT] ISLAND"
_WHY = click.option("--why", metavar="TEXT", default="", help="A word for logs and events.")


def place_of(address: str | None, tls: Path | None) -> tuple[str, Any]:
    """The job's coordinator and the certificate to ask it with. Raises LauncherError."""
    from atoll_launcher.watch.whereabouts import find

    found = find(address, os.environ)
    return found.address, identity(tls or found.tls)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar=WHERE)
@_WHY
@TLS
def drain(words: tuple[str, ...], why: str, tls: Path | None) -> int:
    """Have ISLAND leave politely, after its running round."""
    from atoll_launcher.operating import orders
    from atoll_launcher.watch import whereabouts

    island, named = whereabouts.island_and_address(words)
    address, own = place_of(named, tls)
    orders.drain(address, island, why, own)
    print(f"{island} leaves when its running round is over; see atoll status {address}")
    return exit_codes.OK


@click.command()
@click.argument("words", nargs=-1, required=True, metavar=WHERE)
@_WHY
@TLS
def kill(words: tuple[str, ...], why: str, tls: Path | None) -> int:
    """Put ISLAND out of the job, now; its launcher ends its process and does not restart it."""
    from atoll_launcher.operating import orders
    from atoll_launcher.watch import whereabouts

    island, named = whereabouts.island_and_address(words)
    address, own = place_of(named, tls)
    orders.kill(address, island, why, own)
    print(f"{island} is out; the others go on without it")
    return exit_codes.OK


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[HOST:PORT] NAME")
@TLS
def revoke(words: tuple[str, ...], tls: Path | None) -> int:
    """Declare the certificates of NAME void, now; islands with one are put out of the job.

    Join tokens that were made until now and not used yet are void with them: those for NAME, and
    those for any island.
    """
    from atoll_launcher.trust.enroll import revoke as revoke_certificates
    from atoll_launcher.watch import whereabouts

    name, named = whereabouts.island_and_address(words)
    address, own = place_of(named, tls)
    islands = revoke_certificates(address, name, own)
    put_out = f"; put out: {', '.join(islands)}" if islands else "; no island had one in use"
    print(f"certificates and unused tokens of '{name}', made until now, are void{put_out}")
    return exit_codes.OK


@click.command()
@click.argument("words", nargs=-1, metavar="[HOST:PORT] [ISLAND]")
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@TLS
def logs(words: tuple[str, ...], lines: int, follow: bool, tls: Path | None) -> int:
    """Show the last lines of ISLAND's log, wherever it runs, or of all islands."""
    from atoll_launcher.operating import orders
    from atoll_launcher.watch import whereabouts

    named: str | None = None
    island = ""
    if len(words) == 1 and whereabouts.is_address(words[0]):
        named = words[0]
    elif words:
        island, named = whereabouts.island_and_address(words)
    address, own = place_of(named, tls)
    orders.logs(address, island, lines=lines, follow=follow, identity=own)
    return exit_codes.OK


@click.command()
@click.argument("address", metavar="[HOST:PORT]", required=False)
@click.option("--plain", is_flag=True, help="Plain lines, also on a terminal.")
@TLS
def top(address: str | None, plain: bool, tls: Path | None) -> int:
    """Follow a job in the terminal: islands, links, rates, rounds, loss, events; q ends it."""
    from atoll_launcher.watch.top import top as follow

    place, own = place_of(address, tls)
    follow(place, own, plain=plain)
    return exit_codes.OK


COMMANDS = (drain, kill, revoke, logs, top)
