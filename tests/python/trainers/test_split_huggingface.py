"""transformers' own models as lists of layers: the same bits, whole or in stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from trainer_job import needs

import atoll
from atoll.elastic.local import LocalIsland
from atoll.elastic.oracle import Oracle
from atoll.elastic.task import Task
from atoll.elastic.transition import first_layout
from atoll.errors import MisuseError

pytestmark = needs("transformers")

SEQUENCES, POSITIONS, VOCABULARY = 2, 9, 43


def batch(step: int, micro_batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * step + micro_batch)
    tokens = torch.randint(VOCABULARY, (SEQUENCES, POSITIONS + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


EXAMPLE = batch(0, 0)[0]


def model_of(kind: str, **settings: Any) -> Any:
    import transformers

    torch.manual_seed(3)
    if kind == "GPT2":
        small: dict[str, Any] = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 16}
    else:
        small = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
        small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    untied = {"tie_word_embeddings": False, "vocab_size": VOCABULARY}
    config = getattr(transformers, f"{kind}Config")(**{**small, **untied, **settings})
    name = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    return getattr(transformers, name)(config)


@pytest.mark.parametrize("kind", ["GPT2", "Llama", "Mistral", "Qwen2", "Qwen3"])
def test_layers_have_the_models_bits_and_gradients(kind: str) -> None:
    model = model_of(kind)
    layers = atoll.split_layers(model, EXAMPLE)
    assert len(layers) == 4
    model.eval()
    x = EXAMPLE
    for layer in layers:
        x = layer.eval()(x)
    whole = model(EXAMPLE, use_cache=False).logits
    assert torch.equal(x, whole)
    parameters, targets = list(model.parameters()), batch(0, 0)[1]
    ours = torch.autograd.grad(loss(x, targets), parameters)
    theirs = torch.autograd.grad(loss(whole, targets), parameters)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_a_head_that_is_tied_to_the_embedding_is_one_parameter(kind: str) -> None:
    model = model_of(kind, tie_word_embeddings=True)
    layers = atoll.split_layers(model, EXAMPLE)
    assert layers[-1].get_parameter("1.weight") is model.get_input_embeddings().weight
    model.eval()
    x = EXAMPLE
    for layer in layers:
        x = layer.eval()(x)
    assert torch.equal(x, model(EXAMPLE, use_cache=False).logits)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_stages_train_it_as_one_process_does(kind: str, tied: bool) -> None:
    """With GPT-2's own dropouts, whose draws belong to layers then."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    model = model_of(kind, tie_word_embeddings=tied)
    told = Task(
        seed=1,
        micro_batches=4,
        vshards=6,
        layers=atoll.split_layers(model, EXAMPLE),
        batch=batch,
        loss=loss,
        tokens=4 * SEQUENCES * POSITIONS,
    )
    assert bool(told.spine().ties) == tied
    oracle = Oracle(told)
    island = LocalIsland(told, first_layout(told.spine(), ["a", "b", "c"], pipeline=2))
    assert [island.train_step() for _ in range(2)] == [oracle.train_step() for _ in range(2)]
    torch.set_num_threads(before)


def test_what_ties_its_head_may_be_untied() -> None:
    model = model_of("GPT2", tie_word_embeddings=True)
    layers = atoll.split_layers(model, EXAMPLE, untie=True)
    assert not {*map(id, layers[0].parameters())} & {*map(id, layers[-1].parameters())}


def test_what_the_blocks_alone_do_not_do_is_refused() -> None:
    with pytest.raises(MisuseError, match='attn_implementation="sdpa"'):
        atoll.split_layers(model_of("Llama", attn_implementation="eager"), EXAMPLE)
    windows = {"sliding_window": 4, "attn_implementation": "sdpa"}
    with pytest.raises(MisuseError, match="computes something else than its 4 parts"):
        atoll.split_layers(model_of("Mistral", **windows), EXAMPLE)
    import transformers

    small = {"hidden_size": 24, "intermediate_size": 24, "num_attention_heads": 2}
    bert = transformers.BertModel(transformers.BertConfig(num_hidden_layers=1, **small))
    with pytest.raises(MisuseError, match="lists of blocks"):
        atoll.split_layers(bert, EXAMPLE)
