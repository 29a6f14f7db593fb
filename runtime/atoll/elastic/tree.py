"""The canonical binary tree over micro-batches: the same additions, whoever makes them.

Node (k, i) stands for the micro-batches [i * 2^k, (i + 1) * 2^k) of [0, G). Its value is its left
child's plus its right child's; where nothing of the right half exists (G no power of two), the left
child's. Only siblings are ever added. A worker merges what it has (a binary counter, where its
micro-batches come in order), sends the few nodes that are left, and whoever owns a part of the
gradient finishes the same tree: which worker made an addition does not show in the sum.

Pure, and blind to what a value is: `add(left, right)` may reuse the memory of `left`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Generic, TypeVar

from atoll.errors import MisuseError

Node = tuple[int, int]
"""(k, i)."""

Value = TypeVar("Value")


def leaves(node: Node, micro_batches: int) -> range:
    """The micro-batches that a node stands for."""
    k, i = node
    return range(min(i << k, micro_batches), min((i + 1) << k, micro_batches))


def root(micro_batches: int) -> Node:
    """The node of all micro-batches."""
    return ((micro_batches - 1).bit_length(), 0)


def cover(micro_batches: Iterable[int], total: int) -> tuple[Node, ...]:
    """The fewest nodes that stand for exactly these micro-batches, in order."""
    merger: Merger[None] = Merger(total, lambda left, right: None)
    for micro_batch in micro_batches:
        merger.put((0, micro_batch), None)
    return merger.nodes()


def is_exact_cover(nodes: Iterable[Node], total: int) -> bool:
    """Whether the nodes stand for each micro-batch of [0, total) exactly once."""
    found = sorted(micro_batch for node in nodes for micro_batch in leaves(node, total))
    return found == list(range(total))


class Merger(Generic[Value]):
    """The node values of one gradient that one place holds; merges siblings as they come.

    The order in which values come does not matter, so both a worker (leaves) and an owner (what
    the workers send) use it. `add(left, right)` gets the node of lower micro-batches first.
    """

    def __init__(self, total: int, add: Callable[[Value, Value], Value]) -> None:
        self._total = total
        self._add = add
        self._held: dict[Node, Value] = {}

    def put(self, node: Node, value: Value) -> None:
        """Takes one node. Raises MisuseError if a micro-batch of it is there already."""
        mine = leaves(node, self._total)
        if not mine or node[0] > root(self._total)[0]:
            raise MisuseError(f"node {node} is not in a tree of {self._total} micro-batches")
        for other in self._held:
            theirs = leaves(other, self._total)
            if mine.start < theirs.stop and theirs.start < mine.stop:
                raise MisuseError(f"node {node} comes when {other} is there already")
        for at, other_node in _path(node, self._total):
            if other_node is None:
                continue
            if other_node not in self._held:
                self._held[at] = value
                return
            there = self._held.pop(other_node)
            value = self._add(value, there) if at < other_node else self._add(there, value)
        self._held[root(self._total)] = value

    def nodes(self) -> tuple[Node, ...]:
        """What is held, in the order of micro-batches."""
        return tuple(sorted(self._held, key=lambda node: node[1] << node[0]))

    def value(self, node: Node) -> Value:
        """Raises MisuseError if it is not held."""
        try:
            return self._held[node]
        except KeyError:
            raise MisuseError(f"node {node} is not held, but {self.nodes()}") from None

    def total(self) -> Value:
        """The root's value. Raises MisuseError while micro-batches are missing."""
        return self.value(root(self._total))


def _path(node: Node, total: int) -> Iterator[tuple[Node, Node | None]]:
    """A node and its ancestors below the root, each with its sibling (None: nothing is there)."""
    k, i = node
    while (k, i) != root(total):
        sibling = (k, i ^ 1)
        yield (k, i), sibling if leaves(sibling, total) else None
        k, i = k + 1, i >> 1


@lru_cache(maxsize=64)
def shares(total: int, workers: int) -> tuple[tuple[int, ...], ...]:
    """Consecutive micro-batches for each worker, none with more than ceil(total / workers).

    Of all such cuts, the one with the fewest nodes to send; of equals, the most even one. Found by
    trying, which takes milliseconds (64 on 8 workers: 20), so the last ones are remembered.
    """
    most = -(-total // workers)

    @cache
    def sent(begin: int, size: int) -> int:
        return len(cover(range(begin, begin + size), total))

    # best[begin] after w workers: (nodes, sum of squared sizes, sizes)
    best: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, 0, ())}
    for _ in range(workers):
        after: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for begin, (nodes, squares, sizes) in best.items():
            for size in range(min(most, total - begin) + 1):
                candidate = (
                    nodes + sent(begin, size),
                    squares + size * size,
                    (*sizes, size),
                )
                if begin + size not in after or candidate < after[begin + size]:
                    after[begin + size] = candidate
        best = after
    return _cut(best[total][2])


def _cut(sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    found, begin = [], 0
    for size in sizes:
        found.append(tuple(range(begin, begin + size)))
        begin += size
    return tuple(found)
