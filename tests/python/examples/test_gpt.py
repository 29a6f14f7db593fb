"""The model: causal, shift-equivariant in its positions, and able to learn."""

import math

import gpt
import pytest
import torch

SMALL = gpt.Config(vocabulary=16, block=12, layers=2, heads=2, width=16)


@pytest.fixture
def model() -> gpt.GPT:
    torch.manual_seed(0)
    model = gpt.GPT(SMALL)
    with torch.no_grad():  # the outputs of the blocks start at zero, which would hide everything
        for parameter in model.blocks.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def test_it_begins_without_an_opinion() -> None:
    torch.manual_seed(0)
    model = gpt.GPT(gpt.Config())
    x = torch.randint(0, 256, (4, 64))
    assert model.loss(x, torch.randint(0, 256, (4, 64))).item() == pytest.approx(
        math.log(256), abs=0.2
    )
    assert 100_000 < sum(parameter.numel() for parameter in model.parameters()) < 1_000_000


def test_a_position_sees_nothing_that_comes_later(model: gpt.GPT) -> None:
    x = torch.randint(0, 16, (3, 12))
    changed = x.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 16
    before, after = model(x), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_scores_depend_on_distances_alone() -> None:
    cos, sin = gpt.rotations(10, 8)
    query, key = torch.randn(8), torch.randn(8)

    def score(at: int, of: int) -> float:
        turned = [
            gpt.rotate(vector.view(1, 1, 1, 8), cos[i : i + 1], sin[i : i + 1]).flatten()
            for vector, i in ((query, at), (key, of))
        ]
        return float(turned[0] @ turned[1])

    assert score(3, 1) == pytest.approx(score(9, 7), abs=1e-4)
    assert score(3, 1) != pytest.approx(score(9, 5), abs=1e-4)


def test_shorter_sequences_are_prefixes(model: gpt.GPT) -> None:
    x = torch.randint(0, 16, (2, 12))
    torch.testing.assert_close(model(x[:, :5]), model(x)[:, :5])


@pytest.mark.training
def test_it_learns_to_count(model: gpt.GPT) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        x = (torch.randint(0, 16, (8, 1)) + torch.arange(13)) % 16
        loss = model.loss(x[:, :-1], x[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < 2.0 < losses[0]


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="no multiple of 2 x 3 heads"):
        gpt.Config(width=16, heads=3)
