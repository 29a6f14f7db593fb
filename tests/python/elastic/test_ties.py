"""A parameter of several layers is trained as one, with the same bits wherever these layers are."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from histories import MOMENTS, Kills, drawn_layout, names
from models import (
    VOCABULARY,
    WIDTH,
    Block,
    Embedding,
    Head,
    assert_equal,
    batch,
    loss,
    task,
)
from simulated import Simulation
from torch import Tensor, nn

from atoll.elastic import routes
from atoll.elastic.identity import Spine, Tie
from atoll.elastic.keyed import Dropout
from atoll.elastic.layout import Layout
from atoll.elastic.local import LocalIsland, Moment
from atoll.elastic.member import Member
from atoll.elastic.oracle import Oracle
from atoll.elastic.recovery import Computed, Report
from atoll.elastic.task import Task
from atoll.elastic.transition import even_costs, first_layout, improved, reshaped

pytestmark = pytest.mark.training


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def knotted() -> Task:
    """The head's weight is the embedding's, a block comes twice, and a third one has its norms."""
    plain = task(tied=True)
    embedding, block, third, _, head = plain.layers
    assert isinstance(block, Block)
    assert isinstance(third, Block)
    third.norm1, third.down = block.norm1, block.down
    return replace(plain, layers=[embedding, block, third, block, head])


def still(trained: Task) -> list[nn.Module]:
    """Copies of the layers, with the same ties, that drop nothing."""
    layers = list(copy.deepcopy(nn.ModuleList(trained.layers)))
    for part in (part for layer in layers for part in layer.modules()):
        if isinstance(part, Dropout | nn.Dropout):
            part.p = 0.0
    return layers


class Plain:
    """torch's own loop over the whole model, which knows of no layers."""

    def __init__(self, trained: Task, layers: list[nn.Module]) -> None:
        self.model = copy.deepcopy(nn.Sequential(*layers))
        self._task = trained
        settings = trained.optimizer
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )

    def train_step(self, step: int) -> float:
        self._optimizer.zero_grad()
        total = 0.0
        for micro_batch in range(self._task.micro_batches):
            inputs, targets = batch(step, micro_batch)
            part: Tensor = loss(self.model(inputs), targets) / self._task.tokens
            part.backward()  # type: ignore[no-untyped-call]
            total += float(part.detach())
        assert self._task.max_norm is not None
        nn.utils.clip_grad_norm_(self.model.parameters(), self._task.max_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._task.settings(step).lr
        self._optimizer.step()
        return total


@pytest.mark.parametrize("kind", ["tied", "knotted"])
def test_it_is_torchs_own_training_of_the_tied_model(kind: str) -> None:
    whole = task(tied=True) if kind == "tied" else knotted()
    layers = still(whole)
    trained = replace(whole, layers=layers)
    island = LocalIsland(trained, first_layout(trained.spine(), names(3), pipeline=2))
    plain = Plain(trained, layers)
    apart = Plain(trained, [copy.deepcopy(layer) for layer in layers])
    losses, untied = [], []
    for step in range(4):
        losses.append(island.train_step())
        assert losses[-1] == pytest.approx(plain.train_step(step), rel=1e-5)
        untied.append(apart.train_step(step))
    # AdamW divides by the gradient's size, so that roundings of tiny gradients show.
    right = torch.cat([parameter.detach().flatten() for parameter in plain.model.parameters()])
    ours = torch.cat([parameter.flatten() for parameter in parameters(island, trained)])
    assert torch.allclose(ours, right, rtol=1e-3, atol=1e-3)
    assert losses[-1] != pytest.approx(untied[-1], rel=1e-3), "trained apart is something else"


def parameters(island: LocalIsland, trained: Task) -> list[Tensor]:
    """As torch counts them: each once, in the order in which layers have them."""
    holders = {
        index: layer for worker in island.workers.values() for index, layer in worker.layers.items()
    }
    seen: set[int] = set()
    found = []
    for index, layer in enumerate(trained.layers):
        for name, parameter in layer.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found.append(holders[index].module.get_parameter(name).detach())
    return found


def test_the_state_is_there_once() -> None:
    plain, tied = task().spine(), task(tied=True).spine()
    (tie,) = tied.ties
    weight = VOCABULARY * WIDTH
    assert tie == Tie(home=0, layer=4, begin=0, end=weight, at=tied.layer_sizes[4])
    assert sum(plain.layer_sizes) - sum(tied.layer_sizes) == -(-weight // 64) * 64
    sizes = knotted().spine().layer_sizes
    assert (sizes[1] > 0, sizes[3]) == (True, 0)


def test_a_spine_without_ties_is_what_it_was() -> None:
    """Or checkpoints that were written before would be refused."""
    plain = Spine(seed=1, micro_batches=2, layer_sizes=(64, 128), vshards=3)
    assert plain.digest() == ("97a360ab8b800c98dff8884b01d813ccdedd4274531c1073ecdfdab8aac2646a")
    tie = Tie(home=0, layer=1, begin=0, end=64, at=128)
    assert replace(plain, ties=(tie,)).digest() != plain.digest()


@pytest.mark.parametrize("kind", ["tied", "knotted"])
def test_memory_is_there_once_where_all_are_on_one_worker(kind: str) -> None:
    trained = task(tied=True) if kind == "tied" else knotted()
    island = LocalIsland(trained, first_layout(trained.spine(), names(1), pipeline=1))
    layers = island.workers["w0"].layers
    embedding, head = layers[0].module, layers[4].module
    assert isinstance(embedding, Embedding)
    assert isinstance(head, Head)
    assert head.logits.weight.data_ptr() == embedding.tokens.weight.data_ptr()


@pytest.mark.parametrize("kind", ["tied", "knotted"])
@pytest.mark.parametrize("seed", range(4))
def test_any_layout_has_the_oracles_bits(seed: int, kind: str) -> None:
    rng = random.Random(seed)
    trained = task(tied=True) if kind == "tied" else knotted()
    trained = replace(trained, vshards=rng.choice([1, 5, 6]))
    oracle = Oracle(trained)
    island = LocalIsland(trained, drawn_layout(trained.spine(), rng))
    for _ in range(2):
        assert island.train_step() == oracle.train_step()
        assert_equal(island, oracle)


@pytest.mark.parametrize("dead", ["w0", "w4"])
@pytest.mark.parametrize(("moment", "nth"), MOMENTS[1::3])
def test_a_loss_changes_no_bit(moment: Moment, nth: int, dead: str) -> None:
    trained = task(tied=True)
    spine = trained.spine()
    oracle = Oracle(trained)
    kills = Kills(moment, nth, dead)
    island = LocalIsland(trained, first_layout(spine, names(6), pipeline=2), killer=kills)
    assert island.train_step() == oracle.train_step()
    assert kills.happened
    assert_equal(island, oracle)
    assert not any(move.critical for move in island.moved)
    island.relayout(improved(island.layout, spine, even_costs(spine)))
    assert island.train_step() == oracle.train_step()
    assert_equal(island, oracle)


@pytest.mark.parametrize("seed", range(6))
def test_any_history_has_the_oracles_bits(seed: int) -> None:
    """The layers that are tied come together in one stage and part again."""
    rng = random.Random(2000 + seed)
    trained = replace(knotted(), vshards=rng.choice([2, 6]))
    spine = trained.spine()
    oracle = Oracle(trained)
    pending: list[Kills] = []
    island = LocalIsland(
        trained,
        first_layout(spine, names(5), pipeline=2, chunks=2),
        killer=lambda moment: frozenset[str]().union(*(kills(moment) for kills in pending)),
    )
    for pipeline, chunks in rng.sample([(1, 1), (2, 1), (3, 1), (2, 2), (1, 1)], 4):
        workers = list(island.layout.workers)
        pending[:] = []
        if len(workers) > 3:
            pending.append(Kills(*rng.choice(MOMENTS), rng.choice(workers)))
        assert island.train_step() == oracle.train_step()
        assert_equal(island, oracle)
        pending[:] = []
        island.relayout(
            reshaped(island.layout, spine, even_costs(spine), pipeline=pipeline, chunks=chunks)
        )
        assert_equal(island, oracle)


def test_parameters_are_sent_once_to_who_has_several_layers_that_share_them() -> None:
    spine = task(tied=True).spine()
    whole = first_layout(spine, names(2), pipeline=1)
    parted = first_layout(spine, names(2), pipeline=2)
    for layout, of_embedding in ((whole, spine.vshards // 2), (parted, len(spine.used(4)) - 6)):
        to_last = [
            shard
            for route in routes.to_stage(layout, spine, step=1)
            if route.target == "w1"
            for shard in route.shards
        ]
        assert len(set(to_last)) == len(to_last)
        assert sum(layer == 0 for layer, _ in to_last) == of_embedding


def test_what_a_worker_keeps_of_a_tied_parameter_is_memory_that_it_had_and_has() -> None:
    """The others send the rest, and have to know alike what that is."""
    spine = task(tied=True).spine()
    head = spine.used(4)[-1]
    parted = first_layout(spine, names(2), pipeline=2)
    whole = first_layout(spine, names(2), pipeline=1)

    def kept(first: int, layout: Layout) -> set[int]:
        """Of which layers `w1`, who has held the layers from `first` on."""
        layers = range(first, spine.layers)
        told = Report(
            worker="w1",
            step=3,
            committed=False,
            agreed=None,
            computed=(Computed(first=first, last=spine.layers),),
            owned={},
            shadows={},
            prepared={},
            parameters={shard: 3 for layer in layers for shard in spine.used(layer)},
        )
        return {layer for layer, _ in routes.versions_in(layout, [told], spine)["w1"]}

    assert head[0] == 0
    assert kept(3, parted) == {0, 3, 4}, "the head's copy stays"
    assert kept(3, whole) == {3, 4}, "the embedding is new, and the head computes with its memory"
    assert kept(0, whole) == {0, 1, 2, 3, 4}


def test_the_order_in_which_layers_gradients_are_added_is_part_of_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A block that comes three times has three sums; added otherwise they come to other bits."""
    plain = task()
    embedding, block, *_, head = plain.layers
    trained = replace(plain, layers=[embedding, block, block, block, head])
    oracle = Oracle(trained)
    island = LocalIsland(trained, first_layout(trained.spine(), names(3), pipeline=3))
    users = Spine.users
    monkeypatch.setattr(
        Spine, "users", lambda self, shard: (shard[0], *reversed(users(self, shard)[1:]))
    )
    island.train_step()
    oracle.train_step()
    with pytest.raises(AssertionError):
        assert_equal(island, oracle)


@pytest.mark.simulation
@pytest.mark.parametrize("seed", range(int(os.environ.get("ELASTIC_SEEDS", "18")) // 3))
def test_losses_and_joins_of_members_at_any_moment(seed: int) -> None:
    """Where messages come in any order, and what a member keeps follows from the reports."""
    rng = random.Random(seed)
    trained = replace(task(blocks=2, micro_batches=4, tied=True), vshards=6)
    oracle = Oracle(trained)
    right = [oracle.train_step() for _ in range(4)]
    count, pipeline = rng.randint(3, 6), rng.randint(1, 2)
    chunks = rng.randint(1, 2) if pipeline == 2 else 1

    def member(number: int) -> Member:
        return Member(f"w{number}", trained, pipeline=pipeline, chunks=chunks, arithmetic="same")

    simulation = Simulation([member(i) for i in range(count)], seed=seed, steps=4)
    events = sorted(rng.sample(range(30, 1200), 3))

    def between(turn: int) -> None:
        nonlocal count
        if not events or turn < events[0] or simulation.over:
            return
        layouts = {seat.member.layout for seat in simulation.seats.values()}
        if not all(
            layout is not None
            and set(layout.workers) <= set(simulation.members)
            and all(backup for row in layout.backups for backup in row)
            for layout in layouts
        ):
            return
        events.pop(0)
        if rng.random() < 0.3:
            count += 1
            simulation.join(member(count))
        elif len(simulation.members) > 2:
            simulation.kill(rng.choice(simulation.members))

    simulation.run(between)
    for step, losses in simulation.losses.items():
        assert set(losses.values()) == {right[step - 1]}
    for ended in simulation.ended:
        for index, layer in ended.worker.layers.items():
            assert torch.equal(layer.parameters, oracle.layers[index].parameters)
            for tie, values in layer.tied.items():
                home = oracle.layers[tie.home].parameters
                assert torch.equal(values, home[tie.begin : tie.end])


def test_a_checkpoint_has_the_tied_parameter_once() -> None:
    trained = task(tied=True)
    island = LocalIsland(trained, first_layout(trained.spine(), names(2), pipeline=2))
    island.train_step()
    held = sum(len(s.p) for worker in island.workers.values() for s in worker.owned.values())
    once = {id(p): p.numel() for layer in trained.layers for p in layer.parameters()}
    assert sum(once.values()) <= held < sum(once.values()) + 64 * 60
