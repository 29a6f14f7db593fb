"""The gate: real faults in what is moved, each of them caught, and clean changes passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from models import assert_equal, task

from atoll.elastic import flat
from atoll.elastic.fingerprint import fingerprint
from atoll.elastic.gate import Copy, Evidence, faults
from atoll.elastic.local import LocalIsland
from atoll.elastic.oracle import Oracle
from atoll.elastic.stage_worker import Shard
from atoll.elastic.transition import even_costs, first_layout, improved
from atoll.elastic.tree import Merger
from atoll.errors import GateClosed

pytestmark = pytest.mark.training

WORKERS = [f"w{i}" for i in range(4)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def trained() -> tuple[LocalIsland, Oracle]:
    """After one step, so that all slots hold something."""
    what = task(blocks=2, micro_batches=4, vshards=6)
    island = LocalIsland(what, first_layout(what.spine(), WORKERS, pipeline=2))
    oracle = Oracle(what)
    assert island.train_step() == oracle.train_step()
    return island, oracle


def flip(state: Shard, slot: str) -> Shard:
    """The last bit of one number."""
    bits = getattr(state, slot).view(torch.int32)
    bits[3] ^= 1
    return state


def stale(state: Shard) -> Shard:
    state.version -= 1
    return state


def reset(state: Shard) -> Shard:
    """Adam's step count began anew."""
    return replace(state, version=0)


def dropped(state: Shard) -> Shard:
    """The second moment was not sent."""
    return replace(state, v=torch.zeros_like(state.v))


FAULTS: dict[str, Callable[[Shard], Shard]] = {
    "bit of p": lambda state: flip(state, "p"),
    "bit of m": lambda state: flip(state, "m"),
    "bit of v": lambda state: flip(state, "v"),
    "stale": stale,
    "reset step": reset,
    "dropped slot": dropped,
}


def corrupt(
    monkeypatch: pytest.MonkeyPatch, nth: int, fault: Callable[[Shard], Shard]
) -> Callable[[], bool]:
    """The nth vshard that is sent arrives with this fault. Returns whether that has happened."""
    honest = Shard.copied
    sent = 0

    def copied(state: Shard) -> Shard:
        nonlocal sent
        sent += 1
        return fault(honest(state)) if sent == nth else honest(state)

    monkeypatch.setattr(Shard, "copied", copied)
    return lambda: sent >= nth


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_the_way_is_caught_and_the_old_state_kept(
    fault: str,
    nth: int,
    trained: tuple[LocalIsland, Oracle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    island, oracle = trained
    after = improved(island.layout, island.spine, even_costs(island.spine), joined=["w9"])
    with monkeypatch.context() as patched:
        happened = corrupt(patched, nth, FAULTS[fault])
        with pytest.raises(GateClosed, match="vshard"):
            island.relayout(after)
        assert happened()
    assert island.layout.epoch == 1
    assert island.train_step() == oracle.train_step()
    island.relayout(replace(after, epoch=2))
    assert_equal(island, oracle)
    assert island.train_step() == oracle.train_step()
    assert_equal(island, oracle)


def test_swapped_vshards_are_caught(
    trained: tuple[LocalIsland, Oracle], monkeypatch: pytest.MonkeyPatch
) -> None:
    island, _ = trained
    after = improved(island.layout, island.spine, even_costs(island.spine), joined=["w9"])
    honest = Shard.copied
    first: list[Shard] = []

    def swapped(state: Shard) -> Shard:
        first.append(state)
        return honest(first[1] if len(first) == 3 else state)

    monkeypatch.setattr(Shard, "copied", swapped)
    with pytest.raises(GateClosed, match="differ"):
        island.relayout(after)


def test_a_copy_that_rotted_in_memory_is_caught(trained: tuple[LocalIsland, Oracle]) -> None:
    """Owner and backup are compared, whether their vshard moves or not."""
    island, _ = trained
    worker = island.workers["w0"]
    flip(next(iter(worker.shadows.values())), "m")
    with pytest.raises(GateClosed, match="differ"):
        island.relayout(replace(island.layout, epoch=2))


def evidence_of(island: LocalIsland) -> list[Evidence]:
    return [w.evidence(island.layout, {}, "same") for w in island.workers.values()]


CHANGES: list[tuple[Callable[[Evidence], Evidence], str]] = [
    (lambda each: replace(each, spine="0"), "another run"),
    (lambda each: replace(each, layout="0"), "another layout"),
    (lambda each: replace(each, step=7), "another step"),
    (lambda each: replace(each, arithmetic="other"), "different numbers"),
    (lambda each: replace(each, worker="x"), "nothing was heard of w0"),
    (lambda each: replace(each, copies={}), "does not have it"),
    (
        lambda each: replace(
            each,
            copies={
                shard: Copy(version=copy.version, slots={"p": copy.slots["p"]})
                for shard, copy in each.copies.items()
            },
        ),
        "not ('p', 'm', 'v')",
    ),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_what_workers_must_agree_on(
    change: Callable[[Evidence], Evidence], words: str, trained: tuple[LocalIsland, Oracle]
) -> None:
    island, _ = trained
    honest = evidence_of(island)
    assert faults(honest, island.layout, island.spine, step=1) == []
    found = faults([change(honest[0]), *honest[1:]], island.layout, island.spine, step=1)
    assert any(words in fault for fault in found)


def test_a_layout_that_leaves_out_a_micro_batch_is_caught(
    trained: tuple[LocalIsland, Oracle],
) -> None:
    island, _ = trained
    stage = replace(island.layout.stages[0], micro_batches=((0, 1), (2,)))
    layout = replace(island.layout, stages=(stage, island.layout.stages[1]))
    evidence = [replace(e, layout=layout.digest()) for e in evidence_of(island)]
    assert any("once" in fault for fault in faults(evidence, layout, island.spine, step=1))


def test_the_fingerprint_shows_another_order_of_sums_and_other_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = fingerprint()
    assert fingerprint() == honest
    with monkeypatch.context() as patched:
        # The swapped order: what comes is added to the running sum, as it comes.
        def put(self: Merger[torch.Tensor], node: tuple[int, int], value: torch.Tensor) -> None:
            held = self._held.setdefault((4, 0), torch.zeros_like(value))
            held.add_(value)

        patched.setattr(Merger, "put", put)
        assert fingerprint() != honest
    with monkeypatch.context() as patched:
        patched.setattr(flat, "NORM_BLOCK", 2048)
        assert fingerprint() != honest


def test_the_shadow_is_the_owners_state_at_every_step(
    trained: tuple[LocalIsland, Oracle],
) -> None:
    island, _ = trained
    for _ in range(2):
        owned = {s: x.copy() for w in island.workers.values() for s, x in w.owned.items()}
        shadows = {s: x.copy() for w in island.workers.values() for s, x in w.shadows.items()}
        assert owned == shadows
        island.train_step()
