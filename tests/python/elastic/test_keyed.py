"""Randomness that belongs to work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from atoll.elastic.identity import key
from atoll.elastic.keyed import Dropout, generator, keep_mask, work
from atoll.errors import MisuseError


def test_masks_have_their_probability_and_belong_to_their_key() -> None:
    mask = keep_mask(key(1, 2), (100, 1000), 0.3)
    assert float(mask.double().mean()) == pytest.approx(0.7, abs=0.005)
    assert torch.equal(mask, keep_mask(key(1, 2), (100, 1000), 0.3))
    assert not torch.equal(mask, keep_mask(key(1, 3), (100, 1000), 0.3))
    assert keep_mask(key(1), (3,), 0.0).all()


def masks(dropout: nn.Module, order: list[tuple[int, int]]) -> dict[tuple[int, int], list[bool]]:
    """The masks of (micro-batch, layer), drawn in this order."""
    found = {}
    for micro_batch, layer in order:
        with work(5, 0, micro_batch, layer):
            twice = torch.stack([dropout(torch.ones(64)), dropout(torch.ones(64))])
        found[micro_batch, layer] = (twice > 0).flatten().tolist()
    return found


@pytest.mark.parametrize("dropout", [Dropout(0.5), nn.Dropout(0.5)])
def test_masks_do_not_depend_on_who_draws_them_or_when(dropout: nn.Module) -> None:
    order = [(mb, layer) for mb in range(3) for layer in range(2)]
    torch.manual_seed(0)
    forth = masks(dropout, order)
    torch.manual_seed(1)
    torch.rand(17)
    assert masks(dropout, order[::-1]) == forth
    # Every site of every piece of work has a mask of its own.
    halves = [tuple(mask[i : i + 64]) for mask in forth.values() for i in (0, 64)]
    assert len(set(halves)) == 2 * len(order)


def test_masks_keyed_by_rank_would_be_noticed() -> None:
    """The mutation: a generator for each worker, as data parallelism has it."""

    def by_rank(assignment: list[list[int]]) -> dict[int, list[bool]]:
        found = {}
        for rank, own in enumerate(assignment):
            stream = torch.Generator().manual_seed(rank)
            for mb in own:
                found[mb] = (torch.rand(64, generator=stream) > 0.5).tolist()
        return found

    assert by_rank([[0, 1], [2, 3]]) != by_rank([[0], [1, 2, 3]])


def test_the_programs_own_randomness_goes_on_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with work(1, 2, 3, 4):
        torch.rand(5)
    assert torch.equal(torch.rand(4), expected)


def test_dropout_scales_and_is_off_where_it_should_be() -> None:
    dropout = Dropout(0.75)
    with work(1, 0, 0, 0):
        assert set(dropout(torch.ones(64)).tolist()) == {0.0, 4.0}
    assert torch.equal(dropout.eval()(torch.ones(3)), torch.ones(3))
    with pytest.raises(MisuseError, match="inside a step"):
        Dropout(0.5)(torch.ones(3))
    with pytest.raises(MisuseError):
        Dropout(1.0)


def test_generators_follow_the_key() -> None:
    first, second = (torch.rand(4, generator=generator(key(1, 2))) for _ in range(2))
    assert torch.equal(first, second)
