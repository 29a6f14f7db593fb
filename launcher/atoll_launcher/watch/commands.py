"""`atoll doctor`, `atoll bench links`, `atoll chaos`: looking into a job, and shaking it."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.operating.commands import place_of
from atoll_launcher.trust.commands import TLS, identity

_ADDRESS = click.argument("address", metavar="[HOST:PORT[,HOST:PORT]]", required=False)


@click.command(epilog="Exit code 3 when something fails. Without a job: this machine alone.")
@_ADDRESS
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@TLS
def doctor(address: str | None, as_json: bool, tls: Path | None) -> int:
    """Find out what is wrong on the way to a job, and what to do about it."""
    from atoll_launcher.diagnosis.doctor import run_doctor

    try:
        place, own = place_of(address, tls)
    except LauncherError:
        if address is not None:
            raise
        return run_doctor(None, identity(tls), as_json=as_json)
    return run_doctor(place, own, as_json=as_json)


@click.command("links")
@_ADDRESS
@click.option("--measure", is_flag=True, help="Anew; some seconds, at most twice a minute.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@TLS
def links(address: str | None, measure: bool, as_json: bool, tls: Path | None) -> int:
    """Show rates and round trips between the islands of a running job."""
    from atoll_launcher.watch.links import show_links

    place, own = place_of(address, tls)
    show_links(place, own, measure=measure, as_json=as_json)
    return exit_codes.OK


@click.command(
    epilog="Only for jobs of which every island is a process of yours on this machine; or, with "
    "--here, upon those of them that are."
)
@_ADDRESS
@click.option("--seed", type=int, metavar="N", help="The same faults again.  [default: any]")
@click.option("--mtbf", default="60s", show_default=True, metavar="TIME", help="Between faults.")
@click.option("--duration", metavar="TIME", help="Not set: until the job ends, or Ctrl-C.")
@click.option("--faults", metavar="LIST", help="Of kill,freeze,cut.  [default: all]")
@click.option(
    "--spare",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Nothing is done while so few islands are left.",
)
@click.option("--here", is_flag=True, help="Though the job has islands elsewhere: those here.")
@click.option("--dry-run", is_flag=True, help="Say what would be done in an hour, or --duration.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each fault.")
@TLS
def chaos(
    address: str | None,
    seed: int | None,
    mtbf: str,
    duration: str | None,
    faults: str | None,
    spare: int,
    here: bool,
    dry_run: bool,
    as_json: bool,
    tls: Path | None,
) -> int:
    """Kill, freeze and cut off islands of a job of your own, at random."""
    from atoll_launcher.faults.chaos import ChaosRequest, listed, run_chaos
    from atoll_launcher.faults.plan import Fault

    try:
        kinds = None if faults is None else tuple(map(Fault, faults.split(",")))
    except ValueError as error:
        raise click.UsageError(f"--faults: {error}; there are kill, freeze, cut") from None
    chosen = secrets.randbelow(10_000) if seed is None else seed
    mtbf_s = _seconds("--mtbf", mtbf)
    duration_s = None if duration is None else _seconds("--duration", duration)
    if dry_run:
        print(f"seed {chosen}")
        for step in listed(chosen, mtbf_s, kinds or tuple(Fault), duration_s or 3600.0):
            held = f" for {step.hold_s:g} s" if step.hold_s else ""
            print(f"{step.at_s:8.1f} s  #{step.number:<3} {step.fault}{held}, at {step.pick:.0%}")
        return exit_codes.OK
    place, own = place_of(address, tls)
    return run_chaos(
        ChaosRequest(
            address=place,
            seed=chosen,
            mtbf_s=mtbf_s,
            duration_s=duration_s,
            spare=spare,
            here=here,
            faults=kinds,
            as_json=as_json,
        ),
        own,
    )


def _seconds(option: str, text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    for unit, size in units.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal() and float(number) > 0:
            return float(number) * size
    raise click.UsageError(f"{option} {text}: expected a time such as 500ms, 60s, 5m or 1h")


COMMANDS = (doctor, chaos)
