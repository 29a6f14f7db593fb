"""`atoll export CHECKPOINT --to FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from atoll.errors import CheckpointError
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.watch.plain import scaled_bytes


@click.command(epilog="Exit code 6 when no whole checkpoint is there.")
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--to", type=Path, required=True, metavar="FOLDER", help="A new folder.")
@click.option(
    "--model",
    type=Path,
    metavar="FOLDER",
    help="Of Hugging Face (save_pretrained): its configuration and tokenizer are copied, and its "
    "tensors that were not trained.  [default: write the parameters alone]",
)
def export(checkpoint: str, to: Path, model: Path | None) -> int:
    """Write a checkpoint's parameters as a Hugging Face folder.

    CHECKPOINT: a job's folder or URL, for the newest whole one, or a single one in it.
    """
    from atoll.checkpoint import export as exporting

    def damaged(name: str, problem: str) -> None:
        print(f"atoll: warning: {name} is passed over: {problem}", file=sys.stderr)

    try:
        done = exporting.export(checkpoint, to, model=model, on_damaged=damaged)
    except CheckpointError as error:
        raise LauncherError(str(error), exit_codes.DAMAGED) from error
    except OSError as error:
        raise LauncherError(f"{error.filename or to}: {error.strerror or error}") from error
    print(f"{to}: {exporting.WEIGHTS}, {scaled_bytes(done.nbytes)}, of {done.name}")
    if done.added:
        print(f"{done.added} tensors that were not trained are those of {model}")
    if done.beside:
        print(f"copied: {', '.join(done.beside)}")
    return exit_codes.OK
