"""The identity spine: what is computed is named by work, never by who does it (docs/elastic.md).

Pure. An atomic micro-batch has a number in [0, G), a layer its place in the list, and a vshard is
the v-th part of one layer's parameters, cut once for the whole run. All numbers that a step makes
are functions of these names and of the seed, so they do not change when work moves.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass

from atoll.errors import MisuseError

Worker = str
"""A worker's name; in a job the hexadecimal id of its peer. Orders nothing that is computed."""

VShard = tuple[int, int]
"""(layer, v): the unit of optimizer ownership."""

ALIGNMENT = 64
"""Elements. Parameters begin, and vshards are cut, at multiples of it: 256 bytes of float32, so
that a slice begins where vector instructions and cache lines begin, and none has a short tail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """A parameter of two layers: `layer` computes with the elements [begin, end) of the flat
    parameters of `home`, the first layer that has it.

    at: where their part begins in the gradients that `layer` makes, after its own parameters.
    """

    home: int
    layer: int
    begin: int
    end: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What a tie and a vshard have in common: elements [begin, end) of the vshard, which begin at
    element `at` of the tied parameter."""

    tie: Tie
    begin: int
    end: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spine:
    """What never changes in a run, whoever takes part.

    layer_sizes: elements of each layer's flat parameters, multiples of ALIGNMENT (0 for a layer
    without parameters); a tied parameter counts where its home is. ties: by layer. Raises
    MisuseError for anything that cannot be.
    """

    seed: int
    micro_batches: int
    layer_sizes: tuple[int, ...]
    vshards: int
    ties: tuple[Tie, ...] = ()

    def __post_init__(self) -> None:
        if self.micro_batches < 1 or self.vshards < 1 or not self.layer_sizes:
            raise MisuseError(
                f"an elastic island needs a micro-batch, a layer and a vshard at least, not "
                f"{self.micro_batches}, {len(self.layer_sizes)} and {self.vshards}"
            )
        for layer, size in enumerate(self.layer_sizes):
            if size < 0 or size % ALIGNMENT:
                raise MisuseError(
                    f"layer {layer} has {size} elements, not a multiple of {ALIGNMENT}: "
                    "lay its parameters out with atoll.elastic.flat"
                )

    @property
    def layers(self) -> int:
        return len(self.layer_sizes)

    def bounds(self, shard: VShard) -> tuple[int, int]:
        """Elements [begin, end) of the layer's flat parameters; may be empty."""
        layer, v = shard
        cuts = vshard_cuts(self.layer_sizes[layer], self.vshards)
        return cuts[v], cuts[v + 1]

    def shards(self) -> tuple[VShard, ...]:
        """All vshards, in the order in which everything canonical is summed up."""
        return tuple((layer, v) for layer in range(self.layers) for v in range(self.vshards))

    def overlaps(self, shard: VShard, layer: int) -> tuple[Overlap, ...]:
        """What `layer` computes with of another layer's vshard."""
        found = []
        for tie in self.ties:
            if (tie.home, tie.layer) == (shard[0], layer):
                first, last = self.bounds(shard)
                begin, end = max(first, tie.begin), min(last, tie.end)
                if begin < end:
                    common = Overlap(
                        tie=tie, begin=begin - first, end=end - first, at=begin - tie.begin
                    )
                    found.append(common)
        return tuple(found)

    def users(self, shard: VShard) -> tuple[int, ...]:
        """The layers that compute with a vshard, in the order in which their gradients of it are
        added: its own, and those that are tied to it."""
        others = sorted({tie.layer for tie in self.ties if tie.home == shard[0]})
        return (shard[0], *(layer for layer in others if self.overlaps(shard, layer)))

    def used(self, layer: int) -> tuple[VShard, ...]:
        """The vshards that a layer computes with: its own, and those that it is tied to."""
        homes = sorted({tie.home for tie in self.ties if tie.layer == layer})
        return tuple(
            (home, v)
            for home in (layer, *homes)
            for v in range(self.vshards)
            if home == layer or self.overlaps((home, v), layer)
        )

    def elements(self, shard: VShard, layer: int) -> int:
        """Of a layer's gradient of a vshard."""
        if layer == shard[0]:
            begin, end = self.bounds(shard)
            return end - begin
        return sum(common.end - common.begin for common in self.overlaps(shard, layer))

    def carriers(self, shard: VShard, layers: AbstractSet[int]) -> frozenset[int]:
        """The layers with whose memory a worker that holds `layers` has a vshard's parameters:
        those that are tied to it share its own layer's where that is there."""
        if shard[0] in layers:
            return frozenset({shard[0]})
        return frozenset(self.users(shard)) & layers

    def digest(self) -> str:
        """Which run this is: 64 hexadecimal digits, equal for equal spines."""
        facts = asdict(self)
        if not self.ties:
            del facts["ties"]  # as before there were any: checkpoints have the digest
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def vshard_cuts(size: int, vshards: int) -> tuple[int, ...]:
    """The vshards + 1 boundaries of a layer of `size` elements: multiples of 64, as even as goes.

    A layer with fewer blocks of 64 than vshards leaves some of them empty.
    """
    blocks = -(-size // ALIGNMENT)
    return tuple(min(size, ALIGNMENT * (blocks * v // vshards)) for v in range(vshards + 1))


def key(seed: int, *work: int) -> bytes:
    """H(seed, step, mb, layer, site): 16 bytes that are everything random about a piece of work.

    BLAKE2b of the numbers as 64-bit little-endian integers and of their count, so that no two lists
    of numbers share a text. Negative numbers and those of more than 64 bits are an OverflowError.
    """
    text = struct.pack("<Q", len(work)) + b"".join(
        number.to_bytes(8, "little") for number in (seed, *work)
    )
    return hashlib.blake2b(text, digest_size=16, person=b"atoll elastic").digest()
