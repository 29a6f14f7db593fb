"""EF21, EControl and a codec for each layer, among islands: identities, and who comes and goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from churn import Island, Job, Make, Model

import atoll
from atoll.methods.feedback import Feedback
from atoll.methods.gathered import GatheredMean
from atoll.methods.layered import CANDIDATES, Layered

STEPS = 5


def make(**options: Any) -> Make:
    return lambda session, model, inner: atoll.DiLoCo(
        session, model, inner, sync_every=STEPS, **options
    )


def train(rounds: int = 6, **options: Any) -> list[Island]:
    with Job(make(**options), rounds=rounds, founders=3) as job:
        job.wait()
        assert job.unequal() == []
        return job.islands


def outer(island: Island) -> torch.Tensor:
    assert island.method is not None
    return island.method.outer_parameters()


def method_of(island: Island) -> GatheredMean:
    assert isinstance(island.method, GatheredMean)
    return island.method


def feedback_of(island: Island) -> Feedback:
    feedback = method_of(island)._feedback
    assert feedback is not None
    return feedback


def mean_h(islands: list[Island]) -> torch.Tensor:
    return torch.stack([feedback_of(island).h.double() for island in islands]).mean(0)


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["ef21", "econtrol"])
@pytest.mark.parametrize("codec", ["int8", "two_bit"])
def test_all_know_the_mean_of_h(kind: str, codec: str) -> None:
    """H of all is the same, and the mean of what the islands hold, but for rounding in fp32."""
    islands = train(codec=codec, error_feedback=kind)
    shared = method_of(islands[0])._state.now[0].tensors["mean"]
    for island in islands:
        assert torch.equal(method_of(island)._state.now[0].tensors["mean"], shared)
        assert torch.equal(outer(island), outer(islands[0]))
    assert float(shared.abs().max()) > 0
    torch.testing.assert_close(shared.double(), mean_h(islands), rtol=1e-4, atol=1e-8)


@pytest.mark.processes
def test_econtrol_with_eta_zero_is_ef21_to_the_bit() -> None:
    first = train(codec="two_bit", error_feedback="ef21")
    second = train(codec="two_bit", error_feedback="econtrol", feedback_eta=0.0)
    assert torch.equal(outer(first[0]), outer(second[0]))
    other = train(codec="two_bit", error_feedback="econtrol", feedback_eta=0.3)
    assert not torch.equal(outer(first[0]), outer(other[0]))


@pytest.mark.processes
def test_without_loss_it_is_diloco() -> None:
    plain = outer(train()[0])
    for kind in ("ef21", "econtrol"):
        torch.testing.assert_close(outer(train(codec="fp32", error_feedback=kind)[0]), plain)


@pytest.mark.processes
@pytest.mark.parametrize("kind", [False, "ef", "econtrol"])
def test_layers_get_codecs_of_their_own(kind: Any) -> None:
    """The same on all; no more bytes than the uniform codec's."""
    islands = train(codec="int8", allocation=2, error_feedback=kind)
    chosen = method_of(islands[0]).layer_codecs
    assert all(method_of(island).layer_codecs == chosen for island in islands)
    assert set(chosen.values()) <= set(CANDIDATES)
    assert set(chosen.values()) != {"int8"}
    form = method_of(islands[0])._form
    assert form is not None
    assert form.nbytes < Layered(form.sizes, ["int8"] * len(form.sizes)).nbytes


class Uneven(Model):
    """One layer's numbers are a thousand times as large: rounding those is what costs."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.embedding.weight.mul_(1000.0)


@pytest.mark.processes
def test_the_loud_layer_gets_more_bits() -> None:
    with Job(make(codec="int4", allocation=1), rounds=3, founders=2, model=Uneven) as job:
        job.wait()
        chosen = method_of(job.islands[0]).layer_codecs
    bits = {name: CANDIDATES.index(codec) for name, codec in chosen.items()}
    assert bits["embedding.weight"] > bits["blocks.0.weight"]


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["ef21", "econtrol"])
def test_who_comes_and_goes_makes_all_begin_again(kind: str) -> None:
    """A death and two joins: H stays the mean of the h of those who contribute, and no more."""

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        number = job.islands.index(island)
        if number == 0 and step == 2 and round_ in (2, 5):
            job.join_now(island)
        if number == 1 and round_ == 4 and step == 3:
            island.die()

    job = Job(
        make(codec="two_bit", error_feedback=kind, allocation=3),
        rounds=12,
        founders=3,
        on_step=on_step,
    )
    with job:
        job.wait()
        assert job.unequal() == []
        living = [island for island in job.islands if island.error is None]
        assert len(living) == 4
        assert all(any(did for _, did in one.contributed) for one in living)
        shared = method_of(living[0])._state.now[0].tensors["mean"]
        assert all(torch.equal(outer(one), outer(living[0])) for one in living)
        torch.testing.assert_close(shared.double(), mean_h(living), rtol=1e-4, atol=1e-8)
        # More ops than rounds: every change of who contributes cost one.
        assert method_of(living[0])._revision > method_of(living[0]).round


def test_layers_travel_each_in_its_codec() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(700, generator=generator)
    form = Layered([300, 0, 400], ["two_bit", "int8", "bf16"])
    alone = [Layered([300], ["two_bit"]).through(x[:300]), x[300:].bfloat16().float()]
    assert torch.equal(form.through(x), torch.cat(alone))
    losses = form.errors(x)
    assert losses.shape == (3, len(CANDIDATES))
    torch.testing.assert_close(losses[0, 0], (x[:300] - alone[0]).double().norm())
    assert float(losses[1].abs().max()) == 0.0


def test_what_was_not_delivered_was_not_said() -> None:
    generator = torch.Generator().manual_seed(4)
    delta = torch.randn(512, generator=generator)
    compress = Layered([512], ["two_bit"]).through
    feedback = Feedback("econtrol", 512, eta=0.5)
    first = feedback.message(delta, compress)
    assert torch.equal(feedback.message(delta, compress), first)
    feedback.delivered()
    assert torch.equal(feedback.h, first)
    left = feedback.e.clone()
    torch.testing.assert_close(left, delta - first)
    feedback.forget()
    assert float(feedback.h.abs().max()) == 0.0
    assert torch.equal(feedback.e, left)
