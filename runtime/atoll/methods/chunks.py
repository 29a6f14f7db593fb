"""The chunks in which SparseLoCo picks the largest numbers (arXiv 2508.15706).

A matrix is cut into tiles of 64 x 64, a vector into runs of 4096, and so is a matrix that is
narrower than a tile, whose tiles would be mostly edge; what is left at an edge is a smaller chunk.
A place in a chunk fits in 12 bits: row * 64 + column in a tile, also in one that is cut off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CHUNK = 4096
SIDE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One tensor of a flat vector, as rows x columns in tiles of height x width.

    A vector is one row. A tensor of more dimensions counts as the matrix of its first one and the
    rest.
    """

    begin: int  # of the tensor in the flat vector, elements
    rows: int
    columns: int
    height: int
    width: int

    @property
    def numel(self) -> int:
        return self.rows * self.columns

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.columns // self.width)

    @property
    def chunks(self) -> int:
        return -(-self.rows // self.height) * self.across


def grids(shapes: Sequence[Sequence[int]]) -> tuple[Grid, ...]:
    """The grids of tensors that lie one behind the other in a flat vector, by their shapes."""
    found = []
    begin = 0
    for shape in shapes:
        rows = shape[0] if len(shape) > 1 else 1
        columns = math.prod(shape[1:] if len(shape) > 1 else shape)
        if min(rows, columns) < SIDE:
            rows, columns = 1, rows * columns
        tile = (SIDE, SIDE) if rows > 1 else (1, CHUNK)
        found.append(Grid(begin=begin, rows=rows, columns=columns, height=tile[0], width=tile[1]))
        begin += rows * columns
    return tuple(found)


def check_k(k: int) -> None:
    """Raises MisuseError for a k that no chunk has, or so large that dense codecs are cheaper."""
    if not 1 <= k <= CHUNK:
        raise MisuseError(f"k must be in [1, {CHUNK}], the elements of a chunk, not {k}")
    # 14 bits for each kept number against 2.125 for every one of the dense 2-bit codec.
    most = int(CHUNK * 2.125 / 14)
    if k > most:
        raise MisuseError(
            f"k = {k} of {CHUNK} costs {14 * k / CHUNK:.3g} bits a parameter, more than the dense "
            f"2-bit codec's 2.125; take k <= {most} or a dense method with that codec"
        )


def kept(grid: Grid, k: int) -> list[int]:
    """How many numbers each chunk keeps, in the chunks' order: k of a whole one, and of a smaller
    one as many in proportion, rounded up."""
    found = []
    for top in range(0, grid.rows, grid.height):
        high = min(grid.height, grid.rows - top)
        for left in range(0, grid.columns, grid.width):
            size = high * min(grid.width, grid.columns - left)
            found.append(-(-k * size // CHUNK))
    return found


def tiles(x: Tensor, grid: Grid, *, fill: float) -> Tensor:
    """The chunks of a tensor, [chunks, height * width], from its flat elements x [numel].

    What lies beyond an edge is `fill`.
    """
    import torch

    down, across = grid.chunks // grid.across, grid.across
    padding = (0, across * grid.width - grid.columns, 0, down * grid.height - grid.rows)
    padded = torch.nn.functional.pad(x.view(grid.rows, grid.columns), padding, value=fill)
    cut = padded.view(down, grid.height, across, grid.width).transpose(1, 2)
    return cut.reshape(grid.chunks, grid.height * grid.width)


def top_k(x: Tensor, grid: Grid, k: int) -> Tensor:
    """The places of the k largest |x| of every chunk: int64 [entries], in the chunks' order.

    x: the tensor's elements, flat [numel]. Places within a chunk ascend. Of equal magnitudes the
    one with the lowest place is taken. Section 3 (Top-k over chunks).
    """
    import torch

    size = grid.height * grid.width
    magnitude = tiles(x.abs(), grid, fill=-1.0)  # nothing beyond an edge is ever among the largest
    counts = torch.tensor(kept(grid, k), device=x.device)
    largest = torch.topk(magnitude, min(size, int(counts.max())), dim=1).values
    threshold = largest.gather(1, counts[:, None] - 1)  # [chunks, 1]
    above = magnitude > threshold
    level = magnitude == threshold
    places_left = counts[:, None] - above.sum(dim=1, keepdim=True)
    chosen = above | (level & (level.cumsum(dim=1) <= places_left))
    return chosen.nonzero()[:, 1]


def positions(places: Tensor, grid: Grid, counts: Sequence[int]) -> Tensor:
    """Where in the flat vector the places lie: int64 [entries]; counts: `kept` of the grid.

    Raises MisuseError for places that are not ascending within their chunk or lie beyond an edge:
    they may come from the network.
    """
    import torch

    amounts = torch.tensor(counts, device=places.device)
    chunk = torch.repeat_interleave(torch.arange(len(counts), device=places.device), amounts)
    row = chunk // grid.across * grid.height + places // grid.width
    column = chunk % grid.across * grid.width + places % grid.width
    ascending = (chunk[1:] != chunk[:-1]) | (places[1:] > places[:-1])
    inside = (row < grid.rows) & (column < grid.columns)
    if not bool(inside.all() & ascending.all()):
        raise MisuseError("a sparse payload names places that its tensor does not have, or twice")
    return grid.begin + row * grid.columns + column
