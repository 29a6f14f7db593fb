"""What `atoll plan` is asked, checked before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from atoll.collectives.options import CODECS, PLANS
from atoll.config import nearest
from atoll.errors import MisuseError
from atoll.planning.job import (
    DEFAULT_EVERY,
    DEFAULT_FRAGMENT_LAYERS,
    DEFAULT_KEPT,
    DEFAULT_OVERLAP,
    METHODS,
    SPARSE_CHUNK,
    Choice,
    Job,
)
from atoll.planning.network import Network, payload_share
from atoll_launcher.planning.network import check_step, equal_lines, from_file
from atoll_launcher.planning.units import parse_count

DEFAULT_CODEC = {
    "data-parallel": "fp32",
    "diloco": "fp32",
    "streaming": "fp4",
    "sparseloco": "sparse",
    "noloco": "fp32",
}
MOST_LAYERS = 1_000
MOST_EVERY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Checked. asked: the method that was named, if any; choices: of all methods."""

    job: Job
    network: Network
    asked: str | None
    choices: dict[str, Choice]
    target: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they came from the command line."""

    params: str
    layers: int
    step_s: float
    islands: int | None
    link: str | None
    links: Path | None
    method: str | None
    codec: str | None
    plan: str | None
    every: int | None
    overlap: int | None
    fragment_layers: int | None
    kept: int | None
    bits: float | None
    start: str | None
    outside_params: str
    steps: str
    mtu: int
    target: float


def checked(options: Options) -> Request:
    """Return what is asked. Raises MisuseError for what cannot be meant."""
    job = Job(
        params=_at_least("--params", parse_count("--params", options.params), 1),
        layers=_whole("--layers", options.layers, 1, MOST_LAYERS),
        outside_params=parse_count("--outside-params", options.outside_params),
        steps=_at_least("--steps", parse_count("--steps", options.steps), 1),
    )
    if job.params - job.outside_params < job.layers:
        raise MisuseError(
            f"--params {options.params} are less than one for each of {job.layers} layers"
        )
    if not 0 < options.target <= 1:
        raise MisuseError(f"--target {options.target:g}: a share of the time, above 0 and up to 1")
    asked = None if options.method is None else _one_of("--method", options.method, METHODS)
    if options.codec is not None and asked == "sparseloco":
        raise MisuseError("--codec: sparseloco has an encoding of its own; leave it out")
    if options.plan is not None and asked in ("sparseloco", "noloco"):
        raise MisuseError(f"--plan: {asked} makes no all-reduce; leave it out")
    return Request(
        job=job,
        network=_network(options),
        asked=asked,
        choices={method: _choice(method, asked, options) for method in METHODS},
        target=options.target,
    )


def _network(options: Options) -> Network:
    step_s = check_step("--step-s", options.step_s)
    if options.links is not None:
        if options.link is not None or options.islands is not None:
            raise MisuseError("--links says all of the network; leave out --link and --islands")
        network = from_file(options.links, step_s)
    else:
        if options.link is None or options.islands is None:
            raise MisuseError(
                "say what joins the islands: --islands 4 --link 1gbit,80ms, or --links FILE"
            )
        network = equal_lines(options.islands, options.link, step_s)
    mtu = _whole("--mtu", options.mtu, 0, 65_535)
    if 0 < mtu < 576:
        raise MisuseError(f"--mtu {mtu}: must be 576 .. 65535, or 0: rates are of TCP's payload")
    # A fitted width has everything in it.
    return network if options.bits is not None else network.with_payload_share(payload_share(mtu))


def _choice(method: str, asked: str | None, options: Options) -> Choice:
    """A method with the options that are meant for it.

    Those of the exchange itself (codec, overlap) are the asked method's alone, so that others are
    shown as they would be used; without one, they are those of all that know them.
    """
    mine = asked == method or asked is None
    streams = method == "streaming"
    every, overlap = DEFAULT_EVERY[method], DEFAULT_OVERLAP if streams else 0
    if options.every is not None and method != "data-parallel":
        every = _whole("--every", options.every, 1, MOST_EVERY)
    if options.overlap is not None:
        given = _whole("--overlap", options.overlap, 0, MOST_EVERY)
        overlap = given if streams or asked == method else overlap
    layers = DEFAULT_FRAGMENT_LAYERS
    if options.fragment_layers is not None:
        layers = _whole("--fragment-layers", options.fragment_layers, 1, MOST_LAYERS)
    elif options.layers < layers:
        layers = options.layers
    codec = DEFAULT_CODEC[method]
    if options.codec is not None and mine and codec != "sparse":
        codec = _one_of("--codec", options.codec.replace("-", "_"), CODECS)
    kept = DEFAULT_KEPT
    if options.kept is not None:
        kept = _whole("--kept", options.kept, 1, SPARSE_CHUNK)
    bits = options.bits
    if bits is not None and not (math.isfinite(bits) and 1e-6 <= bits <= 1e6):
        raise MisuseError(f"--bits {bits:g}: must be from 1e-6 to 1e6 bits a parameter")
    return Choice(
        method=method,
        every=every,
        overlap=overlap,
        fragment_layers=layers,
        codec=codec,
        plan=_plan(method, mine, codec, options.plan),
        kept=kept,
        bits=bits,
        by_layer=options.start == "layer" or (options.start is None and bits is not None),
    )


def _plan(method: str, mine: bool, codec: str, given: str | None) -> str:
    """As the methods take it: a ring would quantize sums again at every hop."""
    if given is not None and mine and method not in ("sparseloco", "noloco"):
        return _one_of("--plan", given, PLANS)
    return "auto" if codec in ("fp32", "sparse") else "direct"


def _whole(what: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise MisuseError(f"{what} {value}: must be from {low} to {high}")
    return value


def _at_least(what: str, value: int, low: int) -> int:
    if value < low:
        raise MisuseError(f"{what} {value}: must be at least {low}")
    return value


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value in known:
        return value
    near = nearest(value, known)
    hint = f"did you mean '{near}'?" if near else f"known are {', '.join(known)}"
    raise MisuseError(f"{option} {value}: not known, {hint}")
