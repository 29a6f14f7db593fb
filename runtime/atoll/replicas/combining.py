"""How the replicas' gradients become one: three ways, by name. Each replica's part of a bucket goes
in with `put`, is exchanged as `exchange` says, and comes out as `taken`.

mean:  sum of the gradients / contributors (their weights).
scaled: sum of the gradients / a fixed number of replicas.
fixed: G micro-batches in the canonical binary tree (atoll.elastic.tree), / G.

Thread: whichever runs the backward pass; one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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


class Ordered:
    """fixed: the nodes that replicas send are siblings' sums, which everybody adds up in the tree's
    order. So the bits depend on the micro-batches and on nobody's number or rank."""

    def __init__(self, numel: int, micro_batches: int) -> None:
        self._numel, self._total = numel, micro_batches
        self._slot: int | None = None
        self._shares: tuple[tuple[int, ...], ...] = ()
        self._merger: Merger[torch.Tensor] = tree.Merger(micro_batches, _added)

    def begin(self, slot: int | None, slots: int) -> None:
        self._slot = slot
        self._shares = tree.shares(self._total, slots)
        self._merger = tree.Merger(self._total, _added)

    def put(self, micro_batch: int, gradient: torch.Tensor) -> None:
        """gradient: [numel], which is the tree's from here on."""
        self._merger.put((0, micro_batch), gradient)

    def exchange(self, session: Session, channel: int, weight: float) -> Handle[torch.Tensor]:
        import torch

        payload = torch.zeros(self._rows * self._numel + 1, device="cpu")
        nodes = () if self._slot is None else self._nodes(self._slot)
        if weight > 0 and self._slot is not None and self._merger.nodes() == nodes:
            for row, node in zip(payload[:-1].view(-1, self._numel), nodes, strict=False):
                row.copy_(self._merger.value(node))
            payload[-1] = 1.0
        return session.all_gather(payload, channel=channel)

    def taken(
        self, result: torch.Tensor, weights: Sequence[float], ranks: Sequence[int | None]
    ) -> torch.Tensor | None:
        whole: Merger[torch.Tensor] = tree.Merger(self._total, _added)
        for slot, rank in enumerate(ranks):
            nodes = self._nodes(slot)
            if not nodes:
                continue
            if rank is None or float(result[rank, -1]) != 1.0:
                return None
            for row, node in zip(result[rank, :-1].view(-1, self._numel), nodes, strict=False):
                whole.put(node, row)
        return whole.total().div_(self._total)

    @property
    def _rows(self) -> int:
        """Nodes of the replica that sends most: all send as much."""
        return max(len(self._nodes(slot)) for slot in range(len(self._shares)))

    def _nodes(self, slot: int) -> tuple[Node, ...]:
        return tree.cover(self._shares[slot], self._total)


def _added(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return left.add_(right)


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
