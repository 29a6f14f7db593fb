"""The command line. What a command needs is imported when it runs: `atoll --help` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from atoll.config import describe
from atoll.errors import AtollError, MisuseError
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.islands.elastic import with_workers
from atoll_launcher.measure.commands import bench, plan
from atoll_launcher.operating.commands import COMMANDS as ORDERS
from atoll_launcher.operating.commands import place_of
from atoll_launcher.remote.command import up
from atoll_launcher.settings import (
    AllSettings,
    RunSettings,
    load_settings,
    option_name,
    reached_at,
)
from atoll_launcher.storage.export_command import export
from atoll_launcher.trust.commands import TLS, TOKEN_FILE, certs, token, token_of
from atoll_launcher.watch.commands import COMMANDS as WATCHING
from atoll_launcher.watch.commands import links

HELP = describe(RunSettings)
DEFAULTS = RunSettings()

EPILOG = (
    "Exit codes: 0 done; 2 wrong usage; 3 the job cannot be joined; 4 too few islands are left; "
    "5 a script failed; 6 a checkpoint is damaged; 130 stopped by Ctrl-C; 143 after SIGTERM, the "
    "islands were not gone in time."
)


Decorator = Callable[[Callable[..., int]], Callable[..., int]]


def _option(key: str, **rest: Any) -> Decorator:
    """Return the option of a setting. Not given, it is None, and other sources decide."""
    names = [option_name(key), *rest.pop("names", ())]
    default = getattr(DEFAULTS, key)
    shown = "" if default is None or isinstance(default, bool) else f"  [default: {default}]"
    decorator: Decorator = click.option(*names, key, default=None, help=HELP[key] + shown, **rest)
    return decorator


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Train one PyTorch model on islands of compute that come and go."""


@cli.command(
    context_settings={"allow_interspersed_args": False},
    options_metavar="(--standalone | --elastic | --join HOST:PORT[,HOST:PORT]) [OPTIONS]",
    epilog=EPILOG,
)
@click.option("--standalone", is_flag=True, help="Start a coordinator here, and islands with it.")
@click.option(
    "--join",
    metavar="HOST:PORT[,HOST:PORT]",
    help="Add islands to the job of this coordinator, or of these, of which one leads.",
)
@click.option(
    "--elastic", is_flag=True, help="One elastic island, standalone unless it joins one: --workers."
)
@click.option("--workers", type=int, metavar="N", help="Of the elastic island, on this machine.")
@_option("islands", type=int, metavar="N")
@_option("nproc_per_node", type=int, metavar="K", names=("--nproc_per_node",))
@_option("min_islands", type=int, metavar="N")
@_option("job", metavar="NAME")
@_option("listen", metavar="HOST:PORT")
@_option("max_restarts", type=int, metavar="N")
@_option("threads", type=int, metavar="N")
@_option("store", metavar="memory|sqlite:PATH|etcd://HOST:PORT/PREFIX")
@_option("metrics_port", type=int, metavar="BASE")
@_option("authority", type=Path, metavar="DIR")
@_option("insecure", is_flag=True)
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="ATOLL_TOKEN",
    help="Get a certificate with this first (atoll token). Lists of processes show it: rather set "
    "ATOLL_TOKEN, or use --token-file.",
)
@TOKEN_FILE
@TLS
@click.option(
    "--advertise",
    metavar="HOST[,HOST]",
    help="Where other islands can dial those of this machine: they listen on all its addresses.",
)
@_option("log_dir", type=Path, metavar="DIR")
@_option("events", type=Path, metavar="FILE")
@_option("quiet", is_flag=True, names=("-q",))
@_option("plain", is_flag=True)
@click.option(
    "--config", type=Path, metavar="FILE.toml", help="Read settings from [run] and [session]."
)
@click.argument("script", type=str)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(
    standalone: bool,
    join: str | None,
    config: Path | None,
    token: str | None,
    token_file: str | None,
    tls: Path | None,
    advertise: str | None,
    elastic: bool,
    workers: int | None,
    script: str,
    args: tuple[str, ...],
    **options: object,
) -> int:
    """Run SCRIPT with ARGS as islands on this machine, and keep them running."""
    standalone = standalone or (elastic and join is None)
    if standalone == (join is not None):
        raise click.UsageError(
            "give either --standalone, to start a job, or --join HOST:PORT, to take part in one"
        )
    token = token_of(token, token_file)
    if token is not None and join is None:
        raise click.UsageError("--token is for --join; a job that is started here has no operator")
    if tls is not None and join is None:
        raise click.UsageError("--tls is for --join; a job that is started here has --authority")
    given = {key: value for key, value in options.items() if value is not None}
    given = with_workers(given, elastic=elastic, workers=workers)
    if join is not None:
        _check_join(join, given)
    if tls is not None:  # the islands get it, too
        os.environ["ATOLL_TLS_DIR"] = str(tls.resolve())
    settings = load_settings(config, os.environ, given)
    if advertise is not None:
        os.environ.update(reached_at(advertise, settings.session.value.bind_host))
        settings = load_settings(config, os.environ, given)
    from atoll_launcher.islands.run import RunRequest
    from atoll_launcher.islands.run import run as run_job

    request = RunRequest(settings=settings, join=join, script=script, arguments=args, token=token)
    return run_job(request)


def _check_join(join: str, given: dict[str, object]) -> None:
    from atoll.config import parse_addresses

    try:
        parse_addresses(join)
    except ValueError as error:
        raise click.UsageError(f"--join {join}: {error}") from None
    for key in ("listen", "min_islands", "store", "authority"):
        if key in given:
            raise click.UsageError(
                f"{option_name(key)} is for the coordinator, which a job to be joined has already; "
                "leave it out"
            )


@cli.command()
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:7000", show_default=True)
@click.option(
    "--advertise", metavar="HOST:PORT", default="", help="Where peers find it, if elsewhere."
)
@click.option("--job", metavar="NAME", default="job", show_default=True, help="Name of the job.")
@click.option(
    "--min-islands",
    type=int,
    metavar="N",
    default=1,
    show_default=True,
    help="Islands that begin the job.",
)
@click.option(
    "--store",
    metavar="STORE",
    default="memory",
    show_default=True,
    help="memory, sqlite:PATH, or etcd://HOST:PORT[,HOST:PORT]/PREFIX; with etcd, several "
    "coordinators of one job stand by for one another.",
)
@click.option("--metrics-port", type=int, metavar="PORT", help="Prometheus; 0: any port.")
@click.option("--metrics-host", metavar="HOST", default="127.0.0.1", show_default=True)
@click.option(
    "--tls",
    type=Path,
    metavar="DIR",
    help="Its certificate (atoll certs init); callers then need one of the job, too.",
)
@click.option(
    "--authority", type=Path, metavar="DIR", help="The job's authority, to sign for join tokens."
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen beyond this machine without certificates, on a network that you trust.",
)
def coordinator(**options: Any) -> int:
    """Run a coordinator by itself, for islands that join it."""
    from atoll.coordinator import serve

    return serve(**options)


@cli.command()
@click.argument("address", metavar="[HOST:PORT[,HOST:PORT]]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@TLS
def status(address: str | None, as_json: bool, tls: Path | None) -> int:
    """Show the islands, view, round and loss of a running job."""
    place, own = place_of(address, tls)
    from atoll_launcher.watch.status import show_status

    show_status(place, as_json=as_json, identity=own)
    return exit_codes.OK


@cli.group()
def checkpoints() -> None:
    """Look at a job's checkpoints."""


def _url_argument(function: Callable[..., int]) -> Callable[..., int]:
    """A folder or URL, and --json."""
    function = click.option("--json", "as_json", is_flag=True, help="For programs.")(function)
    return click.argument("url", metavar="URL")(function)


@checkpoints.command("list")
@_url_argument
def checkpoints_list(url: str, as_json: bool) -> int:
    """Show the checkpoints at URL, newest first, by their manifests."""
    from atoll_launcher.storage.checkpoints import show

    return show(url, verify=False, as_json=as_json)


@checkpoints.command("verify", epilog="Exit code 6 when one is damaged.")
@_url_argument
def checkpoints_verify(url: str, as_json: bool) -> int:
    """Read every checkpoint at URL and compare sizes and digests."""
    from atoll_launcher.storage.checkpoints import show

    return show(url, verify=True, as_json=as_json)


@cli.command()
def version() -> int:
    """Print the version."""
    import platform

    import atoll

    print(f"atoll {atoll.__version__} (Python {platform.python_version()})")
    return exit_codes.OK


@cli.group()
def config() -> None:
    """Look at settings."""


@config.command("show")
@click.option("--config", "file", type=Path, metavar="FILE.toml", help="Read this file, too.")
def config_show(file: Path | None) -> int:
    """Print each setting, its value, and where the value comes from."""
    _print_settings(load_settings(file, os.environ, {}))
    return exit_codes.OK


def _print_settings(settings: AllSettings) -> None:
    for table, loaded in (("run", settings.run), ("session", settings.session)):
        print(f"[{table}]")
        rows = [
            (key, _shown(getattr(loaded.value, key)), loaded.origins[key]) for key in loaded.origins
        ]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for key, value, origin in rows:
            print(f"{key:<{widths[0]}} = {value:<{widths[1]}}  # {origin}")
        print()
    for warning in settings.warnings:
        print(f"atoll: warning: {warning}", file=sys.stderr)


def _shown(value: object) -> str:
    if value is None:
        return "(not set)"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, (str, Path)) else str(value)


for command in (bench, plan, export, certs, token, up, *ORDERS, *WATCHING):
    cli.add_command(command)
bench.add_command(links)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code. Every error is one line on stderr."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # or it adds lines of its own
    try:
        code = cli.main(arguments, prog_name="atoll", standalone_mode=False)
        return code if isinstance(code, int) else exit_codes.OK
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help() if error.ctx else "", file=sys.stderr)
        return exit_codes.USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "atoll"
        text = error.format_message().rstrip(".")
        print(f"atoll: {text}; see '{command} --help'", file=sys.stderr)
        return exit_codes.USAGE
    except click.Abort:
        return 130
    except click.ClickException as error:
        print(f"atoll: {error.format_message()}", file=sys.stderr)
        return exit_codes.USAGE
    except LauncherError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return error.code
    except AtollError as error:
        print(f"atoll: {error}", file=sys.stderr)
        return exit_codes.USAGE if isinstance(error, MisuseError) else exit_codes.CANNOT_JOIN
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
