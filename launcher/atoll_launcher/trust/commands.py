"""`atoll certs ...`, `atoll token`: who belongs to a job. docs/security.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from atoll_launcher import exit_codes

TLS = click.option(
    "--tls", type=Path, metavar="DIR", help="Folder of your certificate, if the job asks for one."
)


def identity(folder: Path | None) -> Any:
    """From --tls, else as islands have it, from ATOLL_TLS_DIR."""
    from atoll.client import identity_of
    from atoll.config import session_settings
    from atoll.trust.identity import Identity

    return identity_of(session_settings({})) if folder is None else Identity.in_folder(folder)


TOKEN_FILE = click.option(
    "--token-file",
    metavar="FILE",
    help="Read the token from the first line of FILE; -: of standard input.",
)


def token_of(token: str | None, file: str | None) -> str | None:
    """The token that was given: in words that every list of processes shows, by ATOLL_TOKEN, or in
    a file, which goes before. Raises ConfigError."""
    from atoll.errors import ConfigError

    if file is None:
        return token or None
    try:
        line = sys.stdin.readline() if file == "-" else Path(file).read_text().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ConfigError(f"--token-file {file}: {reason}") from None
    if not line.strip():
        raise ConfigError(f"--token-file {file}: there is no token in its first line")
    return line.strip()


@click.group()
def certs() -> None:
    """Make a job's authority and certificates."""


_AUTHORITY = click.option(
    "--dir", "folder", type=Path, default="certs", show_default=True, help="The authority's folder."
)


def _say(lines: list[str]) -> int:
    print("\n".join(lines))
    return exit_codes.OK


@certs.command("init")
@click.option("--job", metavar="NAME", required=True, help="Name of the job.")
@click.option("--days", type=float, default=365.0, show_default=True, help="How long it is valid.")
@_AUTHORITY
def certs_init(job: str, folder: Path, days: float) -> int:
    """Make the authority of a job, and identities for its coordinator and its operator."""
    from atoll_launcher.trust.certs import make_authority

    return _say(make_authority(job, folder, days=days))


@certs.command("issue")
@click.argument("island", metavar="ISLAND")
@click.option("--out", type=Path, help="Folder of the identity.  [default: DIR/ISLAND]")
@click.option("--days", type=float, default=30.0, show_default=True, help="How long it is valid.")
@_AUTHORITY
def certs_issue(island: str, folder: Path, out: Path | None, days: float) -> int:
    """Make an island's key and certificate here; a token is safer, as its key never travels."""
    from atoll_launcher.trust.certs import issue_island

    return _say(issue_island(folder, island, out, days=days))


@certs.command("show")
@click.argument("place", type=Path, metavar="FOLDER|FILE")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def certs_show(place: Path, as_json: bool) -> int:
    """Show for whom a certificate speaks, and until when."""
    from atoll_launcher.trust.certs import show

    return _say(show(place, as_json=as_json))


@certs.command("enroll")
@click.argument("token", metavar="[TOKEN]", required=False, envvar="ATOLL_TOKEN")
@TOKEN_FILE
@click.option("--island", metavar="NAME", default="", help="If the token says none.")
@click.option("--out", type=Path, help="Folder of the identity.  [default: .atoll/identity-...]")
def certs_enroll(token: str | None, token_file: str | None, island: str, out: Path | None) -> int:
    """Get a certificate for this machine with a join token; its key is made here and stays.

    Without TOKEN, which every list of processes shows: from ATOLL_TOKEN, or --token-file.
    """
    from atoll_launcher.trust.enroll import enroll

    given = token_of(token, token_file)
    if given is None:
        raise click.UsageError("no token: set ATOLL_TOKEN, or give --token-file FILE")
    _, place = enroll(given, island=island, folder=out)
    return _say([f"identity in {place}; use it with: ATOLL_TLS_DIR={place}"])


@click.command()
@click.option(
    "--enroll",
    metavar="HOST:PORT[,HOST:PORT]",
    required=True,
    help="The coordinator, as the joiner reaches it.",
)
@click.option("--island", metavar="NAME", default="", help="Only for an island of this name.")
@click.option("--ttl", default="15m", show_default=True, help="How long it is good: 90s, 15m, 2h.")
@_AUTHORITY
def token(folder: Path, enroll: str, island: str, ttl: str) -> int:
    """Print a join token: good once, for one island, for a while."""
    from atoll_launcher.trust.certs import make_token

    made = make_token(folder, enroll, island, ttl)
    if sys.stdout.isatty():  # elsewhere somebody wants the token alone
        print(
            f"for one island, within {ttl}; on its machine: ATOLL_TOKEN=TOKEN "
            f"atoll run --join {enroll} SCRIPT",
            file=sys.stderr,
        )
    return _say([made])
