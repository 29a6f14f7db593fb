"""Reductions of real islands, beside what torch computes on one machine."""

from __future__ import annotations

import math
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from island_group import Islands

import atoll
from atoll.collectives.options import CODECS, OPS, PLANS
from atoll.collectives.tensors import DTYPES

pytestmark = pytest.mark.processes

SIZES = (0, 1, 2, 7, 1000, 40_001)


def numbers(dtype: torch.dtype, size: int, rank: int) -> torch.Tensor:
    """Small whole numbers: sums of them are exact in every dtype, and wrap in the short ones."""
    generator = torch.Generator().manual_seed(1 + rank)
    if dtype.is_floating_point:
        return torch.randint(-4, 5, (size,), generator=generator).to(dtype)
    low = 0 if dtype == torch.uint8 else -100
    return torch.randint(low, 101, (size,), generator=generator).to(dtype)


def reduced(op: str, inputs: list[torch.Tensor]) -> torch.Tensor:
    stack = torch.stack(inputs)
    dtype = stack.dtype
    if op in ("min", "max"):
        return stack.amin(0) if op == "min" else stack.amax(0)
    if op == "product":
        return stack.prod(0, dtype=dtype)
    total = stack.sum(0, dtype=dtype)
    if op == "sum":
        return total
    if dtype.is_floating_point:
        return (total.double() / len(inputs)).to(dtype)
    return torch.div(total, len(inputs), rounding_mode="trunc")


@pytest.mark.parametrize("name", DTYPES)
def test_all_reduce_is_torchs(islands: Islands, name: str) -> None:
    dtype = getattr(torch, name)
    for size in SIZES:
        inputs = [numbers(dtype, size, rank) for rank in range(3)]
        kept = [tensor.clone() for tensor in inputs]
        handles = islands.start(
            lambda session, rank, of=inputs: {op: session.all_reduce(of[rank], op=op) for op in OPS}
        )
        for op in OPS:
            expected = reduced(op, inputs)
            for by_op in handles:
                torch.testing.assert_close(by_op[op].result(30), expected, rtol=0, atol=0)
                assert by_op[op].outcome.contributors == 3
        for tensor, before in zip(inputs, kept, strict=True):
            assert torch.equal(tensor, before)


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_sum_and_is_named(islands: Islands, plan: str) -> None:
    inputs = [torch.randn(10_007) for _ in range(3)]
    handles = islands.start(lambda session, rank: session.all_reduce(inputs[rank], plan=plan))
    expected = torch.stack(inputs).double().sum(0).float()
    results = [handle.result(30) for handle in handles]
    torch.testing.assert_close(results[0], expected)
    assert all(torch.equal(result, results[0]) for result in results)
    used = {handle.outcome.plan for handle in handles}
    assert len(used) == 1
    assert used == {plan} if plan != "auto" else used < set(PLANS)
    assert {handle.outcome.members for handle in handles} == {3}


@pytest.mark.parametrize("name", DTYPES)
def test_reduce_scatter_gives_everybody_a_part(islands: Islands, name: str) -> None:
    dtype = getattr(torch, name)
    for size in SIZES:
        inputs = [numbers(dtype, size, rank) for rank in range(3)]
        expected = reduced("sum", inputs)
        handles = islands.start(lambda session, rank, of=inputs: session.reduce_scatter(of[rank]))
        parts = [session.part_of(size) for session in islands.sessions]
        assert parts[0].start == 0
        assert parts[-1].stop == size
        for handle, part in zip(handles, parts, strict=True):
            assert torch.equal(handle.result(30), expected[part])


def test_reduce_scatter_with_a_codec_cuts_at_blocks(islands: Islands) -> None:
    inputs = [torch.randn(2000) for _ in range(3)]
    expected = torch.stack(inputs).sum(0)
    handles = islands.start(
        lambda session, rank: session.reduce_scatter(inputs[rank], codec="int8", op="avg")
    )
    parts = [session.part_of(2000, codec="int8") for session in islands.sessions]
    assert parts == [slice(0, 512), slice(512, 1280), slice(1280, 2000)]
    for handle, part in zip(handles, parts, strict=True):
        torch.testing.assert_close(handle.result(30), expected[part] / 3, rtol=0, atol=0.1)


# ---- who contributes -----------------------------------------------------------------------------


def test_averages_are_weighted(islands: Islands) -> None:
    weights = [2.0, 0.5, 1.25]
    inputs = [torch.randn(1001) for _ in range(3)]
    handles = islands.start(
        lambda session, rank: session.all_reduce(inputs[rank], op="avg", weight=weights[rank])
    )
    total = sum(weight * tensor for weight, tensor in zip(weights, inputs, strict=True))
    for handle in handles:
        torch.testing.assert_close(handle.result(30), total / 3.75)
        assert handle.outcome.total_weight == 3.75


@pytest.mark.parametrize("codec", [None, "int8"])
@pytest.mark.parametrize("op", OPS)
def test_weight_zero_contributes_nothing(islands: Islands, op: str, codec: str | None) -> None:
    if codec is not None and op not in ("sum", "avg"):
        pytest.skip("codecs are for sums and averages")
    inputs = [torch.randn(999), torch.full((999,), math.nan), torch.randn(999)]
    handles = islands.start(
        lambda session, rank: session.all_reduce(
            inputs[rank], op=op, codec=codec, weight=float(rank != 1)
        )
    )
    expected = reduced(op, [inputs[0], inputs[2]])
    tolerance = {} if codec is None else {"rtol": 0.0, "atol": 0.2}
    for handle in handles:
        torch.testing.assert_close(handle.result(30), expected, **tolerance)
        assert (handle.outcome.contributors, handle.outcome.members) == (2, 3)
        assert handle.outcome.non_finite == 0


def test_nobody_contributes(islands: Islands) -> None:
    for op, nothing in (("sum", 0.0), ("avg", 0.0), ("product", 1.0)):
        handles = islands.start(
            lambda session, rank, op=op: session.all_reduce(torch.ones(5), op=op, weight=0)
        )
        for handle in handles:
            assert handle.result(30).tolist() == [nothing] * 5
            assert handle.outcome.contributors == 0


# ---- in place ------------------------------------------------------------------------------------


def test_in_place(islands: Islands) -> None:
    buffers = [torch.full((50_000,), float(rank)) for rank in range(3)]
    handles = islands.start(
        lambda session, rank: session.all_reduce(buffers[rank], buffers[rank], op="max")
    )
    for handle, buffer in zip(handles, buffers, strict=True):
        assert handle.result(30) is buffer
        assert bool((buffer == 2.0).all())


def test_what_failed_in_place_gives_the_input_back(islands: Islands) -> None:
    buffers = [torch.full((50_000 + rank,), float(rank)) for rank in range(3)]
    faults = islands.fail(
        lambda session, rank: session.all_reduce(buffers[rank], buffers[rank]).wait(30)
    )
    assert {type(fault) for fault in faults} == {atoll.errors.MismatchError}
    for rank, buffer in enumerate(buffers):
        assert bool((buffer == float(rank)).all())


# ---- codecs --------------------------------------------------------------------------------------

# What a sum of three may be off by, as a part of the largest element.
LOSSES = {
    "fp32": 1e-6,
    "bf16": 0.02,
    "fp16": 0.003,
    "fp8": 0.2,
    "int8": 0.03,
    "int8_minmax": 0.03,
    "int4": 0.5,
    "int4_minmax": 0.5,
    "fp4": 1.0,
    "two_bit": 2.0,
}


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("codec", CODECS)
def test_codecs_give_the_same_bits_to_all(islands: Islands, codec: str, rounding: str) -> None:
    generator = torch.Generator().manual_seed(5)
    inputs = [torch.randn(5003, generator=generator) for _ in range(3)]
    for plan in ("auto", "ring", "direct", "grouped"):
        handles = islands.start(
            lambda session, rank, plan=plan: session.all_reduce(
                inputs[rank], codec=codec, rounding=rounding, seed=5, plan=plan
            )
        )
        results = [handle.result(30) for handle in handles]
        assert all(torch.equal(result, results[0]) for result in results)
        expected = torch.stack(inputs).sum(0)
        loss = float((results[0] - expected).abs().max() / expected.abs().max())
        assert loss < LOSSES[codec] * (4 if plan == "ring" else 1.5), plan
        assert (loss > 0) or codec == "fp32"


def test_numbers_that_are_none_are_counted(islands: Islands) -> None:
    inputs = [torch.randn(3000) for _ in range(3)]
    inputs[1][[5, 700, 2999]] = torch.tensor([math.nan, math.inf, -math.inf])
    handles = islands.start(
        lambda session, rank: session.all_reduce(inputs[rank], codec="int8", plan="direct")
    )
    for handle in handles:
        handle.wait(30)
    counts = [handle.outcome.non_finite for handle in handles]
    assert counts[1] >= 2  # of its own part it sends nothing
    assert sum(counts) >= 3
    port = islands.sessions[1].metrics_port
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    count = float(text.split('atoll_codec_values_total{kind="non_finite"} ')[1].split("\n")[0])
    assert count >= counts[1]


def test_large_numbers_saturate(islands: Islands) -> None:
    big = torch.full((600,), 1e30)
    handles = islands.start(lambda session, rank: session.all_reduce(big, codec="fp16"))
    results = [handle.result(30) for handle in handles]
    assert all(torch.equal(result, results[0]) for result in results)
    assert sum(handle.outcome.saturated for handle in handles) > 0


# ---- disagreement --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "different",
    [
        {"op": "max"},
        {"codec": "int8"},
        {"codec": "int8", "rounding": "stochastic"},
        {"plan": "ring"},
        {"dtype": torch.int32},
        {"size": 99},
    ],
    ids=str,
)
def test_members_that_disagree_all_learn_it(islands: Islands, different: dict[str, Any]) -> None:
    def one(session: atoll.Session, rank: int) -> None:
        options: dict[str, Any] = {"plan": "direct"}
        if rank == 1:
            options.update(different)
        elif "rounding" in different:
            options["codec"] = "int8"
        size, dtype = options.pop("size", 100), options.pop("dtype", torch.float32)
        session.all_reduce(torch.ones(size, dtype=dtype), channel=3, **options).wait(30)

    faults = islands.fail(one)
    assert {type(fault) for fault in faults} == {atoll.errors.MismatchError}
    assert all("members disagree about this op" in str(fault) for fault in faults)
    sums = islands.each(
        lambda session, rank: session.all_reduce(torch.ones(4), channel=3).result(30)
    )
    assert [total.tolist() for total in sums] == [[3.0] * 4] * 3


def test_weights_and_notes_are_known_to_all(islands: Islands) -> None:
    source = torch.ones(5)
    for plan in ("ring", "direct", "mesh", "doubling"):
        handles = islands.start(
            lambda session, rank, plan=plan: session.all_reduce(
                source, op="avg", weight=rank / 2, note=(1 << 63) + rank, plan=plan
            )
        )
        for handle in handles:
            outcome = handle.wait(30)
            assert outcome.weights == [0.0, 0.5, 1.0]
            assert outcome.notes == [(1 << 63) + rank for rank in range(3)]
    gathers = islands.start(lambda session, rank: session.all_gather(source, note=7 * rank))
    for gather in gathers:
        assert gather.wait(30).notes == [0, 7, 14]
    with pytest.raises(atoll.errors.MisuseError, match=r"note -1 is not in"):
        islands.sessions[0].all_reduce(source, note=-1)
