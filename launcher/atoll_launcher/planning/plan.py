"""`atoll plan`: what training on a network would be like, and which method suits."""

from __future__ import annotations

import json
import math
import sys

from atoll.planning.network import Network
from atoll.planning.predict import Prediction, enough_overlap, needed_gbit, predict, recommended
from atoll.planning.regions import warnings
from atoll.planning.traffic import Wires
from atoll_launcher import exit_codes
from atoll_launcher.planning.request import Options, Request, checked
from atoll_launcher.watch.plain import count, scaled, scaled_bytes

TARGETS = (0.5, 0.8, 0.9, 0.95, 0.99)
PIPE_WIDTH = 160


def show(options: Options, *, rates: bool, as_json: bool) -> int:
    """Prints the predictions; returns the exit code. Raises MisuseError."""
    request = checked(options)
    wires = Wires(request.network)
    predictions = {
        method: predict(request.job, choice, wires) for method, choice in request.choices.items()
    }
    best, why = recommended(predictions, request.target)
    overlap = enough_overlap(request.job, request.choices["streaming"], wires, request.target)
    if overlap is not None:
        why += f"; streaming with --overlap {overlap} would reach {request.target:.3g}"
    needed = _needed(request) if rates else None
    shown = request.asked or best
    cautions = warnings(request.job, request.choices[shown], request.network)
    if as_json:
        value: dict[str, object] = {
            **as_object(predictions[shown]),
            "islands": request.network.islands,
            "steps": request.job.steps,
            "recommended": best,
            "reason": why,
            "warnings": cautions,
            "methods": {method: as_object(found) for method, found in predictions.items()},
        }
        if needed is not None:
            value["needed_gbit_per_s"] = {
                method: {
                    f"{target:g}": gbit if math.isfinite(gbit) else None
                    for target, gbit in zip(TARGETS, row, strict=True)
                }
                for method, row in needed.items()
            }
        print(json.dumps(value, indent=2, allow_nan=False))
        return exit_codes.OK
    _print(request, predictions, best, needed)
    print(f"\nrecommended: {best}; {why}")
    for caution in cautions:
        print(f"atoll: warning: {caution}", file=sys.stderr)
    return exit_codes.OK


def as_object(found: Prediction) -> dict[str, object]:
    """A prediction as JSON has it."""
    choice = found.choice
    return {
        "method": choice.method,
        "compute_utilization": found.compute_utilization,
        "every": choice.every,
        "overlap": choice.overlap,
        "fragment_layers": choice.fragment_layers if choice.method == "streaming" else None,
        "codec": None if choice.bits is not None else choice.codec,
        "bits": choice.bits,
        "start": "layer" if choice.by_layer else "step",
        "plan": found.plan,
        "exchanges_per_round": found.exchanges_per_round,
        "sent_bytes_per_round": found.sent_bytes_per_round,
        "most_sent_bytes_per_round": found.most_sent_bytes_per_round,
        "peak_bytes_per_s": found.peak_bytes_per_s,
        "mean_bytes_per_s": found.mean_bytes_per_s,
        "sync_s": found.sync_s,
        "round_s": found.round_s,
        "waiting_s": found.waiting_s,
        "hours": found.hours,
        "memory_bytes_per_param": found.memory_bytes_per_param,
    }


def _needed(request: Request) -> dict[str, list[float]]:
    """By method, the rate of all links that each target needs."""
    return {
        method: [needed_gbit(request.job, choice, request.network, target) for target in TARGETS]
        for method, choice in request.choices.items()
    }


def _print(
    request: Request,
    predictions: dict[str, Prediction],
    best: str,
    needed: dict[str, list[float]] | None,
) -> None:
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    network, job = request.network, request.job
    console.print(
        f"{count(network.islands, 'island')}, {scaled(job.params, ' kMBT')} parameters in "
        f"{count(job.layers, 'layer')}, {_slowest(network)}",
        markup=False,
    )
    rows = []
    for method, found in predictions.items():
        mark = "*" if method == best else ">" if method == request.asked else ""
        choice = found.choice
        rows.append(
            [
                mark,
                method,
                f"{int(found.compute_utilization * 1000) / 10:.1f} %",
                str(choice.every),
                str(choice.overlap) if choice.overlap else "-",
                f"{choice.bits:g} bits" if choice.bits is not None else choice.codec,
                found.plan,
                scaled_bytes(found.sent_bytes_per_round),
                f"{scaled(found.peak_bytes_per_s * 8)}bit/s",
                f"{scaled(found.mean_bytes_per_s * 8)}bit/s",
                _seconds(found.sync_s),
                f"{found.hours:,.4g}",
                f"{found.memory_bytes_per_param:.3g} B",
            ]
        )
    head = "|method|computing|every|overlap|codec|plan|sent a round|peak|mean|sync"
    hours = f"hours for {scaled(job.steps, ' kMGT')} steps"
    console.print(_table([*head.split("|"), hours, "memory a parameter"], rows))
    if needed is not None:
        console.print("\nGbit/s of every link for so much computing:", markup=False)
        columns = ["", "method", *(f"{target:.0%}" for target in TARGETS)]
        cells = [
            ["", method, *(f"{gbit:.1f}" if math.isfinite(gbit) else "-" for gbit in row)]
            for method, row in needed.items()
        ]
        console.print(_table(columns, cells))


def _table(columns: list[str], rows: list[list[str]]) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place in (0, 1) else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _slowest(network: Network) -> str:
    if network.islands < 2:
        return "nobody to exchange with"
    rate = f"{scaled(network.slowest_bytes_per_s * 8)}bit/s"
    return f"slowest link {rate}, longest round trip {_seconds(2 * network.latency_s)}"


def _seconds(seconds: float) -> str:
    if seconds == 0:
        return "0 s"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:,.3g} s"
