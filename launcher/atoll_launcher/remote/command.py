"""`atoll up JOB.toml`. docs/operate.md."""

from __future__ import annotations

from pathlib import Path

import click

from atoll_launcher import exit_codes


@click.command()
@click.argument("file", type=Path, metavar="JOB.toml")
@click.option("--dry-run", is_flag=True, help="Print the commands and do nothing.")
@click.option("--log-dir", type=Path, metavar="DIR", help="What each host prints goes there.")
@click.option("--events", type=Path, metavar="FILE", help="What happens, one JSON object a line.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show what islands print.")
def up(file: Path, dry_run: bool, log_dir: Path | None, events: Path | None, quiet: bool) -> int:
    """Start a whole job over ssh: coordinator, certificates and islands, until it has ended."""
    from atoll_launcher.remote import up as whole
    from atoll_launcher.remote.request import read

    request = read(file)
    if dry_run:
        print("\n".join(whole.dry_run(request)))
        return exit_codes.OK
    return whole.up(whole.UpPlan(request=request, log_dir=log_dir, events=events, quiet=quiet))
