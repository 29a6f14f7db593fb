"""`atoll run --elastic`: the islands of this job are the workers of one elastic island."""

from __future__ import annotations

import click


def with_workers(
    given: dict[str, object], *, elastic: bool, workers: int | None
) -> dict[str, object]:
    """Options as they would be without --elastic. Raises UsageError for what makes no sense.

    All workers must compute alike, so all have one thread unless the user says otherwise.
    """
    if not elastic:
        if workers is not None:
            raise click.UsageError("--workers is for --elastic; islands are counted by --islands")
        return given
    for key in ("islands", "nproc_per_node"):
        if key in given:
            raise click.UsageError(
                f"--{key.replace('_', '-')} is not for --elastic, which counts --workers"
            )
    if workers is None or workers < 1:
        raise click.UsageError("--elastic needs --workers N, at least 1")
    return {"threads": 1, **given, "islands": workers}
