"""`atoll bench ...` and `atoll plan`: how fast islands exchange, and would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atoll.collectives.options import PLANS


@click.group()
def bench() -> None:
    """Measure how fast islands exchange."""


@bench.command(
    "allreduce",
    options_metavar="[--standalone --islands N] [OPTIONS]",
    epilog="Without --standalone it is part of a running job: every island runs it, with the same "
    "options, and the oldest one prints. docs/performance.md says how to read the numbers.",
)
@click.option("--standalone", is_flag=True, help="Start a coordinator and islands for it, here.")
@click.option("--islands", type=int, metavar="N", help="With --standalone.  [default: 2]")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="BYTES",
    help="Of each island's vector: 1KiB, 16MiB, 268435456; may be given several times.  "
    "[default: 1KiB 1MiB 16MiB]",
)
@click.option("--codec", metavar="NAME", help="How the numbers travel.  [default: as they are]")
@click.option(
    "--plan",
    metavar="PLAN",
    default="auto",
    help=f"How the bytes go: {', '.join(PLANS)}.  [default: auto]",
)
@click.option(
    "--dtype", metavar="TYPE", default="float32", help="float32, bfloat16, ...  [default: float32]"
)
@click.option(
    "--transport",
    type=click.Choice(["auto", "tcp", "shm"]),
    default="auto",
    help="What islands of one machine exchange over.  [default: auto]",
)
@click.option(
    "--iterations", type=int, metavar="K", help="Of each size, 7 at least; not set: by the size."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def bench_allreduce(standalone: bool, islands: int | None, as_json: bool, **options: Any) -> int:
    """Time all-reduces of real islands: seconds, bytes, CPU."""
    from atoll_launcher.measure.bench import run_allreduce
    from atoll_launcher.measure.bench_request import parse_request

    request = parse_request(**options)
    if not standalone and islands is not None:
        raise click.UsageError("--islands is for --standalone; a job has the islands that it has")
    return run_allreduce(
        request, (2 if islands is None else islands) if standalone else None, as_json=as_json
    )


@click.command(
    options_metavar="--params N --layers N --step-s S (--islands N --link RATE,RTT | --links FILE)",
    epilog="The other methods are shown beside the one named, each as it is usually used. "
    "docs/planning.md has the model, the file's format and what to expect of the numbers.",
)
@click.option("--params", required=True, metavar="N", help="Of the model: 10e9, 2.5B, 125M.")
@click.option("--layers", required=True, type=int, metavar="N", help="Its transformer blocks.")
@click.option("--step-s", required=True, type=float, metavar="S", help="What an inner step takes.")
@click.option("--islands", type=int, metavar="N", help="1 to 10,000.")
@click.option(
    "--link",
    metavar="RATE,RTT",
    help="Each island's line and the round trip between two: 1gbit,80ms; or UP/DOWN,RTT.",
)
@click.option("--links", type=Path, metavar="FILE", help="Sites, or a matrix: .toml or .json.")
@click.option(
    "--method",
    metavar="METHOD",
    help="data-parallel, diloco, streaming, sparseloco or noloco.  [default: compare all]",
)
@click.option("--codec", metavar="NAME", help="How numbers travel: fp32, int8, fp4, ...")
@click.option("--plan", metavar="PLAN", help=f"How the bytes go: {', '.join(PLANS)}.")
@click.option("--every", type=int, metavar="STEPS", help="From one exchange to the next.")
@click.option("--overlap", type=int, metavar="STEPS", help="That an exchange may take.")
@click.option("--fragment-layers", type=int, metavar="N", help="Of streaming.  [default: 3]")
@click.option("--kept", type=int, metavar="K", help="Of 4,096, sparseloco's.  [default: 64]")
@click.option(
    "--bits",
    type=float,
    metavar="BITS",
    help="Of a parameter on each link, all told: a fitted width in place of codec and plan.",
)
@click.option(
    "--start",
    type=click.Choice(["step", "layer"]),
    help="When exchanges start: after the step, or layer by layer.  [default: step; with --bits "
    "layer]",
)
@click.option("--outside-params", default="0", metavar="N", help="Of them in no block: embeddings.")
@click.option("--steps", default="10000", metavar="N", show_default=True, help="For the hours.")
@click.option(
    "--mtu", type=int, default=1500, show_default=True, help="0: rates are of TCP's payload."
)
@click.option(
    "--target",
    type=float,
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="Compute utilization that is good enough.",
)
@click.option("--rates", is_flag=True, help="Also the rates needed for 50 to 99 %.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def plan(rates: bool, as_json: bool, **options: Any) -> int:
    """Predict utilization, bytes and hours of a training, and which method suits."""
    from atoll_launcher.planning.plan import show
    from atoll_launcher.planning.request import Options

    return show(Options(**options), rates=rates, as_json=as_json)
