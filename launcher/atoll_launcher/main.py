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
from atoll_launcher.settings import AllSettings, RunSettings, load_settings, option_name

HELP = describe(RunSettings)
DEFAULTS = RunSettings()

EPILOG = (
    "Exit codes: 0 done; 2 wrong usage; 3 the job cannot be joined; 4 too few islands are left; "
    "5 a script failed; 130 and 143 stopped by Ctrl-C and SIGTERM."
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
    options_metavar="(--standalone | --join HOST:PORT) [OPTIONS]",
    epilog=EPILOG,
)
@click.option("--standalone", is_flag=True, help="Start a coordinator here, and islands with it.")
@click.option("--join", metavar="HOST:PORT", help="Add islands to the job of this coordinator.")
@_option("islands", type=int, metavar="N")
@_option("min_islands", type=int, metavar="N")
@_option("job", metavar="NAME")
@_option("listen", metavar="HOST:PORT")
@_option("max_restarts", type=int, metavar="N")
@_option("threads", type=int, metavar="N")
@_option("store", metavar="PATH|memory")
@_option("metrics_port", type=int, metavar="BASE")
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
    script: str,
    args: tuple[str, ...],
    **options: object,
) -> int:
    """Run SCRIPT with ARGS as islands on this machine, and keep them running."""
    if standalone == (join is not None):
        raise click.UsageError(
            "give either --standalone, to start a job, or --join HOST:PORT, to take part in one"
        )
    given = {key: value for key, value in options.items() if value is not None}
    if join is not None:
        _check_join(join, given)
    settings = load_settings(config, os.environ, given)
    from atoll_launcher.run import RunRequest
    from atoll_launcher.run import run as run_job

    request = RunRequest(settings=settings, join=join, script=script, arguments=args)
    return run_job(request)


def _check_join(join: str, given: dict[str, object]) -> None:
    from atoll.config import parse_address

    try:
        parse_address(join)
    except ValueError as error:
        raise click.UsageError(f"--join {join}: {error}") from None
    for key in ("listen", "min_islands", "store"):
        if key in given:
            raise click.UsageError(
                f"{option_name(key)} is for the coordinator, which a job to be joined has already; "
                "leave it out"
            )


@cli.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def status(address: str, as_json: bool) -> int:
    """Show the islands, view, round and loss of a running job."""
    from atoll.config import parse_address

    try:
        parse_address(address)
    except ValueError as error:
        raise click.UsageError(f"{address}: {error}") from None
    from atoll_launcher.status import show_status

    show_status(address, as_json=as_json)
    return exit_codes.OK


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


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code. Every error is one line on stderr."""
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
