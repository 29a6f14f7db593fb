"""What is run: sizes, methods and experiments, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model, a data set and a budget of tokens, common to all methods."""

    layers: int = 4
    heads: int = 6
    width: int = 192
    block: int = 128  # tokens of a sequence
    islands: int = 4
    batch: int = 32  # sequences of an island and step; with less, it is noise that is averaged
    steps: int = 6000  # inner steps with all islands; with half of them sparse residuals never fill
    warmup: float = 0.05  # of the tokens
    pretrain: float = 0.25  # of the tokens: data parallel, before a method begins
    last_lr: float = 0.1  # of the peak, at the end of the cosine
    weight_decay: float = 0.1  # of matrices
    betas: tuple[float, float] = (0.9, 0.95)
    validation_blocks: int = 1024
    evaluations: int = 12
    corpus_bytes: int | None = None  # of training text; None: all that there is


FULL = Size()
SMOKE = Size(
    layers=4,
    heads=2,
    width=64,
    block=32,
    batch=4,
    steps=120,
    pretrain=0.0,
    validation_blocks=64,
    corpus_bytes=1_000_000,
)

LR = 3e-3
H = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One method with its settings; a seed makes it a run."""

    method: str
    lr: float = LR  # of the inner AdamW
    options: dict[str, Any] = field(default_factory=dict)


def _diloco(**options: Any) -> Run:
    return Run(method="diloco", options={"sync_every": H, "outer_lr": 0.7, "mu": 0.9, **options})


def _streaming(**options: Any) -> Run:
    base = {
        "sync_every": H,
        "fragments": 4,  # one a block, and one of the rest
        "outer_lr": 0.4,
        "mu": 0.9,
        "alpha": 0.5,
        "overlap": 1,
        "codec": "fp4",
        "exchange": "gather",  # or "reduce"
    }
    return Run(method="streaming", options={**base, **options})


NOLOCO = Run(method="noloco", options={"sync_every": H, "alpha": 0.5, "beta": 0.7, "gamma": 0.7})
SPARSELOCO = Run(
    method="sparseloco", options={"sync_every": H, "k": 64, "beta": 0.95, "alpha": 1.0}
)

RUNS: dict[str, Run] = {
    # Synchronous data parallelism; the strongest of three learning rates is the reference.
    "dp": Run(method="dp"),
    "dp-lr-half": Run(method="dp", lr=LR / 2),
    "dp-lr-double": Run(method="dp", lr=LR * 2),
    "diloco": _diloco(),
    "diloco-lr-half": replace(_diloco(), lr=LR / 2),
    "diloco-lr-double": replace(_diloco(), lr=LR * 2),
    "diloco-h20": _diloco(sync_every=20),
    "diloco-h100": _diloco(sync_every=100),
    "fedavg": _diloco(outer_lr=1.0, mu=0.0),
    "streaming-fp4": _streaming(),
    "streaming-fp4-reduce": _streaming(exchange="reduce"),
    "streaming-fp32": _streaming(codec="fp32", overlap=0, exchange="reduce"),
    "streaming-fp4-overlap5": _streaming(overlap=5),
    "streaming-fp4-lr0.7": _streaming(outer_lr=0.7),
    "noloco": NOLOCO,
    "noloco-every50": replace(NOLOCO, options={**NOLOCO.options, "sync_every": 50}),
    "sparseloco": SPARSELOCO,
    "sparseloco-k128": replace(SPARSELOCO, options={**SPARSELOCO.options, "k": 128}),
    "sparseloco-h15": replace(SPARSELOCO, options={**SPARSELOCO.options, "sync_every": 15}),
    "sparseloco-median": replace(SPARSELOCO, options={**SPARSELOCO.options, "median_norm": True}),
    "eager": _diloco(overlap="eager"),
    # A delay of one round makes large steps ring; the paper tunes the outer rate as well.
    "eager-lr0.1": _diloco(overlap="eager", outer_lr=0.1),
    "eager-lr0.4": _diloco(overlap="eager", outer_lr=0.4),
    "delayed-lr0.4": _diloco(overlap="delayed", outer_lr=0.4),
    "delayed": _diloco(overlap="delayed"),
    "drop-half-lost": _diloco(drop=0.5, dropped="lost"),
    "drop-half-late": _diloco(drop=0.5, dropped="late"),
    "churn-4-2-4": _diloco(churn=True),
    "lgreco": Run(method="lgreco", options={"gradients": 20}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """`run`'s loss is at most `within` above the best of `reference`'s (relative)."""

    run: str
    reference: tuple[str, ...]
    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    title: str
    runs: tuple[str, ...]
    goals: tuple[Goal, ...] = ()


DP = ("dp", "dp-lr-half", "dp-lr-double")

EXPERIMENTS: dict[str, Experiment] = {
    "diloco": Experiment(
        title="DiLoCo beside synchronous data parallelism",
        runs=(
            *DP,
            "diloco",
            "diloco-lr-half",
            "diloco-lr-double",
            "diloco-h20",
            "diloco-h100",
            "fedavg",
        ),
        goals=(
            Goal(run="diloco", reference=DP, within=0.03),
            Goal(run="diloco-h20", reference=DP, within=0.03),
        ),
    ),
    "streaming": Experiment(
        title="Streaming DiLoCo, FP4, overlap 1",
        runs=(
            "diloco",
            "streaming-fp4",
            "streaming-fp4-reduce",
            "streaming-fp32",
            "streaming-fp4-overlap5",
            "streaming-fp4-lr0.7",
        ),
        goals=(
            Goal(run="streaming-fp4", reference=("diloco",), within=0.01),
            Goal(run="streaming-fp4-reduce", reference=("diloco",), within=0.01),
        ),
    ),
    "noloco": Experiment(
        title="NoLoCo, pairs without a collective",
        runs=("diloco", "noloco", "noloco-every50"),
        goals=(Goal(run="noloco", reference=("diloco",), within=0.02),),
    ),
    "sparseloco": Experiment(
        title="SparseLoCo, 1.56 % in two bits",
        runs=("diloco", "sparseloco", "sparseloco-k128", "sparseloco-h15", "sparseloco-median"),
        goals=(Goal(run="sparseloco", reference=("diloco",), within=0.02),),
    ),
    "eager": Experiment(
        title="Outer gradients a round late: eager and delayed",
        runs=("diloco", "eager", "eager-lr0.4", "eager-lr0.1", "delayed", "delayed-lr0.4"),
        goals=(
            Goal(run="eager", reference=("diloco",), within=0.02),
            Goal(run="eager-lr0.4", reference=("diloco",), within=0.02),
            Goal(run="eager-lr0.1", reference=("diloco",), within=0.02),
        ),
    ),
    "churn": Experiment(
        title="Contributions that are dropped, islands that come and go",
        runs=("diloco", "drop-half-lost", "drop-half-late", "churn-4-2-4"),
        goals=(
            Goal(run="drop-half-lost", reference=("diloco",), within=0.03),
            Goal(run="drop-half-late", reference=("diloco",), within=0.03),
            Goal(run="churn-4-2-4", reference=("diloco",), within=0.03),
        ),
    ),
    "lgreco": Experiment(title="L-GreCo on real gradients", runs=("lgreco",)),
}
