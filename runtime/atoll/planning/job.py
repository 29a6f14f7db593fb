"""What is to be trained, and how it is exchanged: the questions that a prediction answers."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("data-parallel", "diloco", "streaming", "sparseloco", "noloco")
"""From the one that changes training least on. The published losses (docs/planning.md) say so."""

DEFAULT_EVERY = {
    "data-parallel": 1,
    "diloco": 100,
    "streaming": 100,
    "sparseloco": 30,
    "noloco": 50,
}
DEFAULT_OVERLAP = 1
"""Of the streaming method; the others wait at once."""
ADVISED_OVERLAP = 5
"""At most: above, loss suffers (arXiv 2501.18512)."""
DEFAULT_FRAGMENT_LAYERS = 3
SPARSE_CHUNK = 4096
DEFAULT_KEPT = 64
_SPARSE_BITS = 12 + 2
"""Of each number kept: its place in the chunk, and its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model of `layers` equal blocks.

    params: all of them. outside_params: those of no block (embeddings, head), part of `params`.
    steps: of the whole training, of each island.
    """

    params: int
    layers: int
    outside_params: int = 0
    steps: int = 10_000

    @property
    def units(self) -> int:
        """Equal units of computing in a step; docs/planning.md, Model."""
        return 3 * self.layers - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a method exchanges.

    every: steps between two exchanges of the same parameters. overlap: steps that an exchange may
    take before its result is waited for. fragment_layers: of each fragment; as many as the model
    has, or more: all is one. codec, plan: of `atoll.collectives.options`. kept: of 4,096 numbers,
    SparseLoCo's. bits: of a parameter on each island's link, all told; it replaces codec and plan.
    by_layer: exchanges go layer by layer, as soon as the backward pass is through a layer, and a
    layer's forward pass waits for its own alone; otherwise they start when the step is over, and
    the next step waits for all of the fragment.
    """

    method: str
    every: int
    overlap: int = 0
    fragment_layers: int = DEFAULT_FRAGMENT_LAYERS
    codec: str = "fp32"
    plan: str = "auto"
    kept: int = DEFAULT_KEPT
    bits: float | None = None
    by_layer: bool = False

    @property
    def sparse_bits(self) -> float:
        """Of a parameter, in SparseLoCo's payload."""
        return _SPARSE_BITS * self.kept / SPARSE_CHUNK


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """What is exchanged together: blocks, and of `params` those that are in none."""

    offset: int
    layers: tuple[int, ...]
    params: int
    outside_params: int


def fragments(job: Job, choice: Choice) -> list[Fragment]:
    """The fragments and the steps of the period in which their exchange starts.

    Streaming: block l in fragment l mod P, P = ceil(layers / fragment_layers); what is in no block
    is a fragment of its own, the last; t_p = floor(p * every / P). All else: one fragment.
    """
    blocks = job.params - job.outside_params
    streams = choice.method == "streaming"
    count = -(-job.layers // choice.fragment_layers) if streams else 1
    parts = [tuple(range(first, job.layers, count)) for first in range(count)]
    sizes = [blocks * len(part) // job.layers for part in parts]
    sizes[0] += blocks - sum(sizes)
    outside = [0] * count
    if job.outside_params and streams:
        parts.append(())
        sizes.append(0)
        outside.append(job.outside_params)
    else:
        outside[0] = job.outside_params
    return [
        Fragment(
            offset=place * choice.every // len(parts),
            layers=part,
            params=size + rest,
            outside_params=rest,
        )
        for place, (part, size, rest) in enumerate(zip(parts, sizes, outside, strict=True))
    ]


def memory_bytes_per_param(choice: Choice, job: Job, islands: int) -> float:
    """What a method holds for each parameter, beside the model and the inner optimizer.

    Everything in fp32: outer parameters and momentum, and what is under way: an exchange's input
    and its result, of so many fragments as are under way at once at most.
    """
    parts = fragments(job, choice)
    largest = max(part.params for part in parts) / job.params
    together = min(1.0, largest * max(1, -(-choice.overlap * len(parts) // choice.every)))
    match choice.method:
        case "data-parallel":
            return 4.0
        case "diloco" | "streaming":
            return 8.0 + 8.0 * together
        case "noloco":
            return 8.0 + 12.0  # phi, delta; own Delta, the partner's Delta and phi
        case _:
            return 8.0 + 4.0 + islands * choice.sparse_bits / 8  # theta, e; the sum, all payloads
