"""Gradients, norms and losses: the same bits for every assignment, every cut, every order."""

from __future__ import annotations

import math
import random

import pytest
import torch
from assignments import drawn
from torch import Tensor, nn

from atoll.elastic import adamw, flat
from atoll.elastic.identity import Spine
from atoll.elastic.tree import Merger
from atoll.errors import TensorError


def leaf_gradients(micro_batches: int, size: int) -> list[Tensor]:
    """Numbers of very different sizes, so that the order of additions shows."""
    made = torch.Generator().manual_seed(5)
    rows = torch.randn(micro_batches, size, generator=made)
    return list(rows * torch.exp2(torch.randint(-12, 12, rows.shape, generator=made)))


def summed(gradients: list[Tensor], assignment: list[list[int]]) -> Tensor:
    owner = Merger(len(gradients), flat.add)
    for own in assignment:
        worker = Merger(len(gradients), flat.add)
        for micro_batch in own:
            worker.put((0, micro_batch), gradients[micro_batch].clone())
        for node in worker.nodes():
            owner.put(node, worker.value(node).clone())
    return owner.total()


@pytest.mark.parametrize("micro_batches", [1, 2, 7, 12, 16])
def test_the_sum_has_the_same_bits_for_every_assignment(micro_batches: int) -> None:
    gradients = leaf_gradients(micro_batches, 640)
    alone = summed(gradients, [list(range(micro_batches))])
    rng = random.Random(9)
    for _ in range(20):
        assignment = drawn(rng, micro_batches, rng.randint(1, 6))
        assert torch.equal(summed(gradients, assignment), alone)


def test_naive_sums_differ_or_the_test_above_is_blind() -> None:
    gradients = leaf_gradients(16, 640)

    def naive(assignment: list[list[int]]) -> Tensor:
        """What data parallelism does: each worker adds up its own, then the workers' sums."""
        return sum(sum(gradients[mb] for mb in own) for own in assignment)  # type: ignore[return-value,misc]

    halves = naive([list(range(8)), list(range(8, 16))])
    thirds = naive([list(range(6)), list(range(6, 11)), list(range(11, 16))])
    assert not torch.equal(halves, thirds)
    assert torch.allclose(halves, thirds, rtol=1e-4, atol=1e-2)


def test_the_norm_has_no_order_and_meets_its_definition() -> None:
    spine = Spine(seed=0, micro_batches=1, layer_sizes=(64 * 300, 64 * 7), vshards=3)
    gradients = [leaf_gradients(1, size)[0] for size in spine.layer_sizes]
    blocks = [
        flat.squares(gradients[shard[0]][slice(*spine.bounds(shard))]) for shard in spine.shards()
    ]
    in_order = [number for block in blocks for number in block]
    shuffled = random.Random(3).sample(in_order, len(in_order))
    assert flat.gradient_norm(in_order) == flat.gradient_norm(shuffled)
    exact = math.sqrt(math.fsum(x * x for g in gradients for x in g.tolist()))
    assert flat.gradient_norm(in_order) == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize(
    ("blocks", "norm"),
    [([1.0, math.inf], math.inf), ([1.0, math.nan], math.nan), ([math.inf, math.nan], math.nan)],
)
def test_a_norm_of_no_number_is_none(blocks: list[float], norm: float) -> None:
    assert str(flat.gradient_norm(blocks)) == str(norm)


def test_gradients_are_clipped_only_when_too_long() -> None:
    assert flat.clip_factor(2.0, None) == flat.clip_factor(2.0, 2.0) == 1.0
    assert flat.clip_factor(4.0, 1.0) == 0.25


def test_the_loss_has_no_order() -> None:
    losses = [0.1 * (1 + i) ** 3 for i in range(9)]
    assert flat.total_loss(losses) == flat.total_loss(losses[::-1])
    assert sum(losses) != sum(losses[::-1])


def test_an_update_of_a_slice_is_the_slice_of_the_update() -> None:
    size = 64 * 37
    p, m, v, g = (torch.randn(size, generator=torch.Generator().manual_seed(s)) for s in range(4))
    v = v.square()
    settings = adamw.AdamW(lr=1e-2, weight_decay=0.1)
    whole = [t.clone() for t in (p, m, v)]
    adamw.apply(settings, *whole, g, step=7)
    # Cuts at any element, so that every slice has a tail that vector code does not cover.
    cuts = sorted(random.Random(1).sample(range(1, size), 40))
    for begin, end in zip([0, *cuts], [*cuts, size], strict=True):
        part = [t[begin:end].clone() for t in (p, m, v)]
        adamw.apply(settings, *part, g[begin:end], step=7)
        for got, expected in zip(part, whole, strict=True):
            assert torch.equal(got, expected[begin:end])


def test_updates_are_adamws() -> None:
    parameter = nn.Parameter(torch.randn(192, generator=torch.Generator().manual_seed(0)))
    p, m, v = parameter.detach().clone(), torch.zeros(192), torch.zeros(192)
    theirs = torch.optim.AdamW([parameter], lr=1e-2, weight_decay=0.1, foreach=False)
    ours = adamw.AdamW(lr=1e-2, weight_decay=0.1)
    for step in range(1, 9):
        g = torch.randn(192, generator=torch.Generator().manual_seed(step))
        parameter.grad = g.clone()
        theirs.step()
        adamw.apply(ours, p, m, v, g, step=step)
        torch.testing.assert_close(p, parameter.detach(), rtol=1e-5, atol=1e-7)


def test_a_layer_computes_with_its_flat_vector() -> None:
    layer = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2, bias=False))
    x = torch.randn(4, 5)
    before = layer(x)
    layer_places = flat.places(layer)
    vector = flat.bind(layer, layer_places)
    assert torch.equal(layer(x), before)
    assert [place.begin for place in layer_places] == [0, 64, 128]
    assert vector.numel() == flat.size_of(layer_places) == 192
    vector.zero_()
    assert not layer(x).any()


def test_other_dtypes_than_float32_are_refused() -> None:
    with pytest.raises(TensorError, match="float64"):
        flat.places(nn.Linear(2, 2).double())
