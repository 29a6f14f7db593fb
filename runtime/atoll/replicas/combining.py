"""How the replicas' gradients become one: three ways, by name. Each replica's part of a bucket goes
in with `put`, is exchanged as `exchange` says, and comes out as `taken`.

mean:  sum of the gradients / contributors (their weights).
scaled: sum of the gradients / a fixed number of replicas.
fixed: G micro-batches in the canonical binary tree (atoll.elastic.tree), / G.

Thread: whichever runs the backward pass; one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from atoll.elastic import tree
from atoll.errors import MisuseError

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle
    from atoll.elastic.tree import Merger, Node
    from atoll.session import Session

Peers = tuple[bytes, ...]


class Combining(Protocol):
    """One bucket's gradients, step after step."""

    total: torch.Tensor
    """[numel]: where `taken` leaves what it returns."""

    def begin(self, slot: int | None, slots: int) -> None:
        """A step begins; this replica's place among those whose work it is, None: it has none."""

    def exchange(self, session: Session, channel: int, weight: float) -> Handle[torch.Tensor]:
        """Sends off what was put in, which stays as it is."""

    def taken(
        self, result: torch.Tensor, weights: Sequence[float], ranks: Sequence[int | None]
    ) -> torch.Tensor | None:
        """[numel], the same bits on all; None: somebody's part is missing. weights: by rank. ranks:
        by slot, None for who is not in the view any more."""


@dataclass(slots=True)
class Averaged:
    """mean, and with `replicas` scaled. `flat`: this replica's gradient, [numel]."""

    flat: torch.Tensor
    replicas: int | None = None
    total: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.total = self.flat.new_empty(self.flat.shape)

    def begin(self, slot: int | None, slots: int) -> None:
        pass

    def exchange(self, session: Session, channel: int, weight: float) -> Handle[torch.Tensor]:
        how = "avg"
        if self.replicas is not None:
            how, weight = "sum", float(weight > 0)
        return session.all_reduce(self.flat, self.total, op=how, weight=weight, channel=channel)

    def taken(
        self, result: torch.Tensor, weights: Sequence[float], ranks: Sequence[int | None]
    ) -> torch.Tensor | None:
        if not any(weights):
            return None
        return result if self.replicas is None else result.div_(self.replicas)


@dataclass(slots=True, eq=False)
class Piece:
    """A gradient of this replica, or a sum of siblings. flat: [numel]; views: by parameter."""

    flat: torch.Tensor
    views: list[torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """How everybody adds up what `slots` replicas send. nodes: of each slot, in order. Every node
    of every slot has a number, counted in that order: `adds` are (left, right), of which left
    becomes the sum; at the end the total is in `root`."""

    nodes: tuple[tuple[Node, ...], ...]
    adds: tuple[tuple[int, int], ...]
    root: int
    rows: int
    """Nodes of the replica that sends most: all send as much."""


@lru_cache(maxsize=64)
def sums(total: int, slots: int) -> Sums:
    """Of `total` micro-batches on so many replicas: what Merger does with numbers for values."""
    nodes = tuple(tree.cover(share, total) for share in tree.shares(total, slots))
    adds: list[tuple[int, int]] = []

    def added(left: int, right: int) -> int:
        adds.append((left, right))
        return left

    merger: Merger[int] = tree.Merger(total, added)
    for number, node in enumerate(node for each in nodes for node in each):
        merger.put(node, number)
    rows = max(len(each) for each in nodes)
    return Sums(nodes=nodes, adds=tuple(adds), root=merger.total(), rows=rows)


class Ordered:
    """fixed: the nodes that replicas send are siblings' sums, which everybody adds up in the tree's
    order. So the bits depend on the micro-batches and on nobody's number or rank."""

    def __init__(
        self,
        numel: int,
        micro_batches: int,
        views_of: Callable[[torch.Tensor], list[torch.Tensor]],
    ) -> None:
        """views_of: of a flat vector, by parameter."""
        import torch

        self.total = torch.empty(numel, device="cpu")
        self._numel, self._micro_batches, self._views_of = numel, micro_batches, views_of
        self._slot: int | None = None
        self._sums = sums(micro_batches, 1)
        self._mine = self._merger()
        self._payload = self._gathered = torch.zeros(0, device="cpu")
        # Making memory and its views anew takes longer than small gradients take to add.
        self._free: list[Piece] = []

    def begin(self, slot: int | None, slots: int) -> None:
        self._free += map(self._mine.value, self._mine.nodes())
        self._mine = self._merger()
        self._slot = slot
        self._sums = sums(self._micro_batches, slots)

    def room(self) -> Piece:
        """For a gradient, of arbitrary content."""
        if self._free:
            return self._free.pop()
        flat = self.total.new_empty(self._numel)
        return Piece(flat, self._views_of(flat))

    def put(self, micro_batch: int, gradient: Piece) -> None:
        """gradient: of `room`; it is the tree's from here on."""
        self._mine.put((0, micro_batch), gradient)

    def exchange(self, session: Session, channel: int, weight: float) -> Handle[torch.Tensor]:
        length = self._sums.rows * self._numel + 1
        if self._payload.numel() != length:
            self._payload = self._payload.new_zeros(length)
        nodes = () if self._slot is None else self._sums.nodes[self._slot]
        has_all = weight > 0 and self._slot is not None and self._mine.nodes() == nodes
        if has_all:
            for row, node in enumerate(nodes):
                target = self._payload.narrow(0, row * self._numel, self._numel)
                target.copy_(self._mine.value(node).flat)
        self._payload[-1] = float(has_all)
        view = session.view
        shape = (len(view.members), length)
        if self._gathered.shape != shape:
            self._gathered = self._payload.new_empty(shape)
        return session.all_gather(
            self._payload, self._gathered, channel=channel, epoch=view.epoch or None
        )

    def taken(
        self, result: torch.Tensor, weights: Sequence[float], ranks: Sequence[int | None]
    ) -> torch.Tensor | None:
        import torch

        has_all = result[:, -1].tolist()
        values: list[torch.Tensor] = []
        for nodes, rank in zip(self._sums.nodes, ranks, strict=True):
            if not nodes:
                continue
            if rank is None or has_all[rank] != 1.0:
                return None
            row = result[rank]
            values += (row.narrow(0, k * self._numel, self._numel) for k in range(len(nodes)))
        for left, right in self._sums.adds:
            values[left].add_(values[right])
        return torch.div(values[self._sums.root], self._micro_batches, out=self.total)

    def _merger(self) -> Merger[Piece]:
        return tree.Merger(self._micro_batches, self._added)

    def _added(self, left: Piece, right: Piece) -> Piece:
        left.flat.add_(right.flat)
        self._free.append(right)
        return left


BATCHES = ("constant", "scaled", "fixed")


def check(batch: object, *, replicas: Any, micro_batches: Any) -> None:
    """Raises MisuseError for settings that do not go together."""
    from atoll.collectives.options import one_of

    one_of("batch", batch, BATCHES)
    for name, value, mode in (
        ("replicas", replicas, "scaled"),
        ("micro_batches", micro_batches, "fixed"),
    ):
        if (batch == mode) != (value is not None):
            raise MisuseError(f'{name} goes with batch="{mode}", and that with it')
        if value is not None and (not isinstance(value, int) or value < 1):
            raise MisuseError(f"{name} must be at least 1, not {value!r}")
