"""The canonical tree: the same additions for every assignment of micro-batches to workers."""

from __future__ import annotations

import random

import pytest
from assignments import drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.elastic.tree import Merger, Node, cover, is_exact_cover, leaves, root, shares
from atoll.errors import MisuseError


def spelled(left: str, right: str) -> str:
    """An addition that shows how it was made."""
    return f"({left}+{right})"


def by_definition(node: Node, total: int) -> str:
    k, i = node
    if k == 0:
        return str(i)
    left, right = (k - 1, 2 * i), (k - 1, 2 * i + 1)
    if not leaves(right, total):
        return by_definition(left, total)
    return spelled(by_definition(left, total), by_definition(right, total))


def finished(assignment: list[list[int]], total: int) -> str:
    owner = Merger(total, spelled)
    for own in assignment:
        worker = Merger(total, spelled)
        for micro_batch in own:
            worker.put((0, micro_batch), str(micro_batch))
        for node in worker.nodes():
            owner.put(node, worker.value(node))
    return owner.total()


@given(st.integers(1, 40), st.integers(1, 7), st.randoms(use_true_random=False))
def test_every_assignment_makes_the_same_additions(
    total: int, workers: int, rng: random.Random
) -> None:
    assert finished(drawn(rng, total, workers), total) == by_definition(root(total), total)


@given(st.integers(1, 40), st.data())
def test_a_cover_is_exact_and_has_no_siblings(total: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, total - 1)))
    nodes = cover(chosen, total)
    assert sorted(mb for node in nodes for mb in leaves(node, total)) == sorted(chosen)
    assert all((k, i ^ 1) not in nodes for k, i in nodes)
    assert is_exact_cover(nodes, total) == (len(chosen) == total)


def test_a_micro_batch_that_comes_twice_is_refused() -> None:
    merger = Merger(6, spelled)
    for micro_batch in (0, 1, 2):
        merger.put((0, micro_batch), str(micro_batch))
    for node in ((0, 2), (1, 0), (3, 0), (0, 6), (4, 0)):
        with pytest.raises(MisuseError):
            merger.put(node, "x")
    assert merger.nodes() == ((1, 0), (0, 2))
    with pytest.raises(MisuseError):
        merger.total()


@settings(max_examples=60)
@given(st.integers(1, 24), st.integers(1, 6))
def test_shares_are_balanced_and_of_few_nodes(total: int, workers: int) -> None:
    found = shares(total, workers)
    assert [mb for own in found for mb in own] == list(range(total))
    assert max(map(len, found)) == -(-total // workers)


def test_shares_prefer_aligned_blocks() -> None:
    # Even thirds of 16 cost 7 nodes, 2.33 a worker; these 5.
    even = [range(6), range(6, 11), range(11, 16)]
    assert sum(len(cover(own, 16)) for own in even) == 7
    assert sum(len(cover(own, 16)) for own in shares(16, 3)) == 5
    assert shares(16, 4) == tuple(tuple(range(i, i + 4)) for i in (0, 4, 8, 12))
