"""The position of a step, and the order of additions: all members make the same of the same."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.elastic import tree
from atoll.replicas.buckets import planned
from atoll.replicas.combining import sums
from atoll.replicas.position import absorbed, begun, from_json, next_pass, to_json

PEERS = (b"a" * 16, b"b" * 16)

ops = st.lists(st.tuples(st.booleans(), st.integers(0, 5).map(bool)), min_size=1, max_size=60)
"""Of each op: whether the view changes before it, and whether it commits."""


@given(st.integers(1, 4), ops, st.data())
def test_who_comes_between_two_ops_does_as_the_others(
    buckets: int, story: list[tuple[bool, bool]], data: st.DataObject
) -> None:
    """At every op of a new view somebody may come, who knows what was published and no more."""
    everybody = [begun(buckets, PEERS)]
    epoch = 1
    for changes, ok in story:
        if changes:
            epoch += 1
            told = json.loads(json.dumps(to_json(everybody[0])))
            if data.draw(st.booleans()):
                everybody.append(from_json(told))
        everybody = [absorbed(one, epoch=epoch, ok=ok) for one in everybody]
        if not everybody[0].todo:
            everybody = [next_pass(one, epoch) for one in everybody]
        if not everybody[0].todo:
            # Complete: everybody has every bucket's result of this very view.
            assert all(one.done == tuple((b, epoch) for b in range(buckets)) for one in everybody)
            everybody = [begun(buckets, PEERS, step=one.step + 1) for one in everybody]
        assert len({json.dumps(to_json(one)) for one in everybody}) == 1


@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 4))
def test_one_change_costs_only_what_was_exchanged_before_it(
    buckets: int, before: int, after: int
) -> None:
    position = begun(buckets, PEERS)
    for bucket in range(buckets):
        position = absorbed(position, epoch=1 if bucket < before else 2, ok=True)
    position = next_pass(position, 1 if before >= buckets else 2)
    assert position.todo == (() if before >= buckets else tuple(range(before)))


@pytest.mark.parametrize("todo", [[3], [-1]])
def test_a_bucket_that_is_not_there_is_refused(todo: list[int]) -> None:
    value = {**to_json(begun(3, PEERS)), "todo": todo}
    with pytest.raises(ValueError, match="of 3"):
        from_json(value)


def test_buckets_come_in_the_order_of_backward() -> None:
    assert planned([4, 4, 4, 4], first=4, others=8) == [[3], [2, 1], [0]]
    assert planned([4, 100, 4], first=8, others=8) == [[2], [1], [0]]
    assert planned([1, 2], first=100, others=100) == [[1, 0]]


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_everybody_adds_up_in_the_trees_order(total: int, slots: int, data: st.DataObject) -> None:
    """What `sums` has written down gives what mergers give, to the bit."""
    given_ = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=total, max_size=total))
    numbers = torch.tensor(given_)
    plan = sums(total, slots)
    whole: tree.Merger[torch.Tensor] = tree.Merger(total, lambda a, b: a + b)
    values: list[torch.Tensor] = []
    for share, nodes in zip(tree.shares(total, slots), plan.nodes, strict=True):
        mine: tree.Merger[torch.Tensor] = tree.Merger(total, lambda a, b: a + b)
        for index in share:
            mine.put((0, index), numbers[index])
            whole.put((0, index), numbers[index])
        assert mine.nodes() == nodes
        values += map(mine.value, nodes)
    for left, right in plan.adds:
        values[left] = values[left] + values[right]
    assert torch.equal(values[plan.root], whole.total())
    assert plan.rows == max(map(len, plan.nodes))
