"""Models as lists of layers: the same bits, or one clear line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import POSITIONS, VOCABULARY, WIDTH, Block, Embedding, Head, batch, loss, task
from torch import Tensor, nn

import atoll
from atoll.elastic.local import LocalIsland
from atoll.elastic.oracle import Oracle
from atoll.elastic.task import Task
from atoll.elastic.transition import first_layout
from atoll.errors import MisuseError

pytestmark = pytest.mark.training


class Whole(nn.Module):
    """Embeddings, a dropout, blocks, a norm and a head, as most write it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(self.tokens(tokens) + self.positions.weight)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(x))
        return out


class Doubled(Whole):
    def forward(self, tokens: Tensor) -> Tensor:
        return 2 * super().forward(tokens)


class Pair(Whole):
    def forward(self, tokens: Tensor) -> Any:
        return super().forward(tokens), None


EXAMPLE = batch(0, 0)[0]


def made(kind: Any = Whole) -> Any:
    torch.manual_seed(5)
    return kind()


def task_of(layers: list[nn.Module]) -> Task:
    told = task(micro_batches=4)
    return Task(
        seed=told.seed,
        micro_batches=4,
        vshards=6,
        layers=layers,
        batch=batch,
        loss=loss,
        tokens=told.tokens,
    )


def gradients(output: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss(output, batch(0, 0)[1]), list(model.parameters())))


def test_a_whole_model_and_its_layers_have_the_same_bits() -> None:
    model = made()
    layers = atoll.split_layers(model, EXAMPLE)
    assert len(layers) == 4
    assert model.training
    assert all(part.training for layer in layers for part in layer.modules())
    model.eval()
    x = EXAMPLE
    for layer in layers:
        x = layer.eval()(x)
    whole = model(EXAMPLE)
    assert torch.equal(x, whole)
    for ours, theirs in zip(gradients(x, model), gradients(whole, model), strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_split_trains_in_stages_as_in_one_process() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    told = task_of(atoll.split_layers(made(), EXAMPLE))
    oracle = Oracle(told)
    island = LocalIsland(told, first_layout(told.spine(), ["a", "b", "c"], pipeline=2))
    assert [island.train_step() for _ in range(2)] == [oracle.train_step() for _ in range(2)]
    torch.set_num_threads(before)


def test_a_sequential_is_the_list_of_its_parts() -> None:
    torch.manual_seed(5)
    parts = [Embedding(), Block(), Block(), Head()]
    model = nn.Sequential(parts[0], nn.Sequential(*parts[1:3]), parts[3])
    assert atoll.split_layers(model, EXAMPLE) == parts


def test_what_the_last_layer_returns_can_be_said() -> None:
    with pytest.raises(MisuseError, match=r"returns tuple, not a tensor: say with output="):
        atoll.split_layers(made(Pair), EXAMPLE)
    layers = atoll.split_layers(made(Pair), EXAMPLE, output=lambda model, x: model(x)[0])
    assert len(layers) == 4


def test_a_tied_head_stays_tied_or_gets_its_own() -> None:
    model = made()
    model.head.weight = model.tokens.weight
    layers = atoll.split_layers(model, EXAMPLE)
    assert layers[3].get_parameter("1.weight") is model.tokens.weight
    (tie,) = task_of(layers).spine().ties
    assert (tie.home, tie.layer, tie.end - tie.begin) == (0, 3, VOCABULARY * WIDTH)
    layers = atoll.split_layers(model, EXAMPLE, untie=True)
    copied = layers[3].state_dict()["1.weight"]
    assert torch.equal(copied, model.head.weight)
    assert copied.data_ptr() != model.head.weight.data_ptr()
    assert model.head.weight is model.tokens.weight
    assert task_of(layers).spine().ties == ()


def test_a_block_that_is_used_twice_is_shared_parameters() -> None:
    block = Block()
    model = nn.Sequential(Embedding(), block, block, Head())
    spine = task_of(atoll.split_layers(model, EXAMPLE)).spine()
    assert {(tie.home, tie.layer) for tie in spine.ties} == {(1, 2)}
    assert spine.layer_sizes[2] == 0
    layers = atoll.split_layers(model, EXAMPLE, untie=True)
    assert not {*map(id, layers[1].parameters())} & {*map(id, layers[2].parameters())}


def lost(model: Any) -> None:
    model.scale = nn.Parameter(torch.ones(()))


def two_lists(model: Any) -> None:
    model.more = nn.ModuleList([Block()])


def no_head(model: Any) -> None:
    del model.norm, model.head


def in_another_order(model: Any) -> None:
    norm = model.norm
    del model.norm
    model.norm = norm


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lost, "scale of Whole would be in none of 4 layers"),
        (two_lists, r"Whole has 2 lists of blocks \(nn.ModuleList\)"),
        (no_head, "Whole needs parts before its blocks"),
        (in_another_order, r"layer 3 of 4 does not take what the one before returns"),
    ],
)
def test_what_cannot_be_split_is_told(change: Any, line: str) -> None:
    model = made()
    change(model)
    with pytest.raises(MisuseError, match=line) as error:
        atoll.split_layers(model, EXAMPLE)
    assert "\n" not in str(error.value)


def test_a_model_that_does_more_than_its_parts_is_refused() -> None:
    with pytest.raises(MisuseError, match="computes something else than its 4 parts"):
        atoll.split_layers(made(Doubled), EXAMPLE)
