"""What follows from the reports of survivors: forward or again, and how much again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll.elastic.identity import Spine
from atoll.elastic.layout import Layout
from atoll.elastic.recovery import (
    Agreed,
    Computed,
    Report,
    next_step,
    recovery,
    redo,
    rolls_forward,
)
from atoll.elastic.transition import first_layout, repaired
from atoll.elastic.tree import cover
from atoll.errors import StateUnavailable

SPINE = Spine(seed=0, micro_batches=4, layer_sizes=(64,) * 6, vshards=1)
WORKERS = [f"w{i}" for i in range(6)]
LAYOUT = first_layout(SPINE, WORKERS, pipeline=3)  # two workers a stage, two micro-batches each
NOTHING = frozenset[int]()


def report(worker: str, layout: Layout = LAYOUT, *, done: bool = True) -> Report:
    """Of one that has computed all that it has to (or nothing), and not reduced yet."""
    index = layout.stage_index(worker)
    own = frozenset(layout.micro_batches_of(worker)) if done else NOTHING
    return Report(
        worker=worker,
        step=7,
        committed=False,
        agreed=None,
        computed=(
            Computed(
                first=layout.stages[index].first,
                last=layout.stages[index].last,
                nodes=frozenset(cover(own, SPINE.micro_batches)),
                outputs=own if index < 2 else NOTHING,
                gradients=own if index > 0 else NOTHING,
            ),
        ),
        owned={s: 7 for s in SPINE.shards() if layout.owner(s) == worker},
        shadows={s: 7 for s in SPINE.shards() if layout.backup(s) == worker},
        prepared={},
        parameters={},
    )


def without(given: Report, what: str) -> Report:
    (computed,) = given.computed
    return replace(given, computed=(replace(computed, **{what: NOTHING}),))


def prepared(given: Report, *, digest: str = "same") -> Report:
    held = dict.fromkeys((*given.owned, *given.shadows), digest)
    return replace(given, prepared=held, agreed=Agreed(factor=1.0, loss=2.0))


def redone(*dead: str, idle: tuple[str, ...] = ()) -> list[tuple[set[int], set[int], set[int]]]:
    """(forward, backward, leaf) of each stage, when all but `idle` had computed everything."""
    alive = [worker for worker in WORKERS if worker not in dead]
    after = repaired(LAYOUT, set(alive), SPINE)
    found = redo([report(worker, done=worker not in idle) for worker in alive], after, SPINE)
    return [(set(x.forward), set(x.backward), set(x.leaf)) for x in found]


NONE: tuple[set[int], set[int], set[int]] = (set(), set(), set())


def test_nothing_is_done_again_if_nothing_is_lost() -> None:
    assert redone() == [NONE, NONE, NONE]


def test_a_stage_does_again_what_died_with_its_worker() -> None:
    mine = set(LAYOUT.micro_batches_of("w2"))
    assert redone("w2") == [NONE, (mine, mine, mine), NONE]


def test_what_died_with_a_neighbour_is_made_again_for_it() -> None:
    """Stage 1 lost what it computed, and stage 0 and 2 what they had sent it."""
    mine = set(LAYOUT.micro_batches_of("w2"))
    assert {mb for w in ("w0", "w2", "w4") for mb in LAYOUT.micro_batches_of(w)} == mine
    assert redone("w0", "w2", "w4") == [(mine, mine, mine)] * 3


def test_a_forward_pass_is_made_again_without_a_backward_pass() -> None:
    """A gradient that a survivor holds enters the tree once; only the output is needed again."""
    mine = frozenset(LAYOUT.micro_batches_of("w2"))
    alive = [w for w in WORKERS if w != "w2"]
    reports = [without(r, "outputs") if r.worker == "w0" else r for r in map(report, alive)]
    first, second, third = redo(reports, repaired(LAYOUT, set(alive), SPINE), SPINE)
    assert (first.forward, first.backward, first.leaf) == (mine, NOTHING, NOTHING)
    assert (second.forward, second.leaf) == (mine, mine)
    assert third.forward == NOTHING
    # Likewise a gradient: a backward pass whose parameters' gradient does not count again.
    reports = [without(r, "gradients") if r.worker == "w4" else r for r in map(report, alive)]
    *_, third = redo(reports, repaired(LAYOUT, set(alive), SPINE), SPINE)
    assert (third.forward, third.backward, third.leaf) == (mine, mine, NOTHING)


def test_a_step_that_is_prepared_everywhere_is_rolled_forward() -> None:
    alive = [report(worker) for worker in WORKERS[1:]]
    assert not rolls_forward(alive, SPINE)
    everywhere = [prepared(each) for each in alive]
    assert rolls_forward(everywhere, SPINE)
    assert next_step(everywhere, SPINE) == 8
    answer = recovery(LAYOUT, everywhere, SPINE)
    assert (answer.step, answer.agreed) == (8, Agreed(factor=1.0, loss=2.0))
    # One vshard whose owner is dead, and whose backup had nothing yet: again, and not forward.
    late = [replace(everywhere[0], prepared={}), *everywhere[1:]]
    assert not rolls_forward(late, SPINE)
    assert recovery(LAYOUT, late, SPINE).step == 7


def test_a_step_is_not_rolled_forward_past_a_copy() -> None:
    """Nobody is dead, one has come: owners have prepared, and backups have not got it yet. If the
    owners went on alone, the next loss could hit the only copy."""
    reports = [prepared(report(worker)) for worker in WORKERS]
    owners_only = [replace(each, prepared=dict.fromkeys(each.owned, "same")) for each in reports]
    assert not rolls_forward(owners_only, SPINE)
    assert recovery(LAYOUT, owners_only, SPINE).moves == ()
    # Where one of the two is dead, the other is enough.
    (owner,) = (each for each in reports if (0, 0) in each.owned)
    assert rolls_forward([each for each in reports if each is not owner], SPINE)


def test_a_gradient_that_was_damaged_on_its_way_is_not_rolled_forward() -> None:
    all_alive = [prepared(report(worker)) for worker in WORKERS]
    assert rolls_forward(all_alive, SPINE)
    assert not rolls_forward([prepared(all_alive[0], digest="x"), *all_alive[1:]], SPINE)


@pytest.mark.parametrize("ahead", ["w3", "w5"])
def test_who_is_ahead_or_has_seen_the_commit_takes_all_forward(ahead: str) -> None:
    reports = {worker: prepared(report(worker)) for worker in WORKERS[1:]}
    committed = {**reports, ahead: replace(reports[ahead], committed=True)}
    assert next_step(list(committed.values()), SPINE) == 8
    one = reports[ahead]
    applied = replace(
        one, step=8, prepared={}, owned=dict.fromkeys(one.owned, 8), agreed=None,
        shadows=dict.fromkeys(one.shadows, 8), computed=(),
    )  # fmt: skip
    answer = recovery(LAYOUT, list({**reports, ahead: applied}.values()), SPINE)
    assert answer.step == 8
    assert answer.agreed is not None
    assert all(x.leaf == set(range(4)) for x in answer.redo)


def test_what_has_no_copy_left_is_refused() -> None:
    owner, backup = LAYOUT.owner((0, 0)), LAYOUT.backup((0, 0))
    alive = [report(worker) for worker in WORKERS if worker not in (owner, backup)]
    with pytest.raises(StateUnavailable, match="checkpoint"):
        recovery(LAYOUT, alive, SPINE)
